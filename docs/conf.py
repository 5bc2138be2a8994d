"""Sphinx configuration. Build from the root: python -m sphinx -W -b html docs docs/_build/html"""

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
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
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


def collect_results():
    """Write what the page on results includes, from the reports and pictures that the benchmarks left behind."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    folder = "/" + GENERATED.relative_to(HERE).as_posix()
    reports = {path.name: path.read_text(encoding="utf-8") for path in sorted(RESULTS.glob("*.md"))}
    parts = [to_rst(report, folder) for report in reports.values()]
    for path in sorted(RESULTS.glob("*.png")):
        shutil.copy(path, GENERATED / path.name)
        if not any(path.name in report for report in reports.values()):
            parts.append(f".. image:: {folder}/{path.name}\n   :alt: {path.stem.replace('_', ' ')}\n   :width: 100%\n")
    none = "No measurements are stored in ``benchmarks/results`` of this version.\n"
    (GENERATED / "contents.txt").write_text("\n".join(parts) or none, encoding="utf-8")


collect_results()
