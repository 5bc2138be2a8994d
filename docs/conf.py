"""Sphinx configuration. Build from the root: python -m sphinx -W -b html docs docs/_build/html"""

import re
import shutil
import sys
from pathlib import Path

import skbgmd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from markdown_report import to_rst  # noqa: E402

#: Reports and pictures that the benchmarks leave behind, and where the page on results takes them from.
RESULTS = HERE.parent / "benchmarks" / "results"
GENERATED = HERE / "_build" / "results"

project = "skbgmd"
author = "The skbgmd developers"
project_copyright = author
version = release = skbgmd.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    # MathJax's files go into the built pages: formulas need no network.
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
# The gallery's sources become the pages of auto_gallery.
exclude_patterns = ["_build", "examples", "gallery"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["gallery.css"]
html_title = f"skbgmd {release}"

autosummary_generate = True
autodoc_mock_imports = ["flwr"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# scikit-learn makes these and refers to its own pages in them.
autodoc_default_options = {"exclude-members": "set_fit_request, set_partial_fit_request, set_score_request"}
# Members are listed by the templates.
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
nitpicky = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "backreferences_dir": "auto_gallery/backreferences",
    "doc_module": ("skbgmd",),
    "filename_pattern": r"/plot_",
    "subsection_order": ["gallery/data", "gallery/networks", "gallery/machines"],
    "within_subsection_order": "gallery_setup.ReadingOrder",
    "reset_modules": ("gallery_setup.reset",),
    "abort_on_example_error": True,
    "image_srcset": ["2x"],
    "copyfile_regex": r".*\.json",
    "capture_repr": (),
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "write_computation_times": False,
}


def collect_results():
    """Write what pages include: the benchmarks' reports and pictures, and the changelog."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    folder = "/" + GENERATED.relative_to(HERE).as_posix()
    reports = {path.name: path.read_text(encoding="utf-8") for path in sorted(RESULTS.glob("*.md"))}
    parts = [to_rst(report, folder) for report in reports.values()]
    for path in sorted(RESULTS.glob("*.png")):
        shutil.copy(path, GENERATED / path.name)
        if not any(path.name in report for report in reports.values()):
            parts.append(f".. image:: {folder}/{path.name}\n   :alt: {path.stem.replace('_', ' ')}\n   :width: 100%\n")
    changes = (HERE.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    (GENERATED / "changes.txt").write_text(to_rst(changes.partition("\n")[2], folder), encoding="utf-8")
    none = "No measurements are stored in ``benchmarks/results`` of this version.\n"
    (GENERATED / "contents.txt").write_text("\n".join(parts) or none, encoding="utf-8")


collect_results()


def correct_anchors(app, pagename, templatename, context, doctree):
    """Let the pages of the source lead back to objects by the names of their pages.

    Sphinx takes all objects of a module to be documented in the module where the first of them is.
    """
    if pagename.startswith("_modules/"):
        context["body"] = re.sub(r'(href="[^"#]*/(skbgmd\.[\w.]+)\.html)#([\w.]+)"', with_name_of_page, context["body"])


def with_name_of_page(link):
    """The link, a match, with an anchor that begins with the name of the page."""
    address, page, anchor = link.groups()
    if anchor.startswith(page):
        return link[0]
    return f'{address}#{page}{anchor.partition("." + page.rpartition(".")[2])[2]}"'


def setup(app):
    app.connect("html-page-context", correct_anchors)
