"""The package as it is installed: its metadata, what it needs, its commands, and the examples of its README."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import skbgmd

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: Distributions that bring modules of other names.
BRINGS = {
    "sklearn": "scikit-learn",
    "joblib": "scikit-learn",
    "threadpoolctl": "scikit-learn",
    "cloudpickle": "distributed",
}


def names(requirements: list[str]) -> set[str]:
    """Distributions of requirements."""
    return {re.match(r"[\w-]+", requirement).group().replace("_", "-") for requirement in requirements}


def needed(path: Path) -> set[str]:
    """Modules without which a file can't be imported, save those that it skips without."""
    text = path.read_text(encoding="utf-8")
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found - set(re.findall(r'importorskip\("(\w+)', text))


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("skbgmd", []),
        ("tests", ["test", "flower"]),
        ("benchmarks", ["benchmark", "flower"]),
        ("docs", ["docs", "flower"]),
    ],
)
def test_what_is_imported_is_required(folder, extras):
    """At the head of a module; what only some functions need is imported in them."""
    files = list((ROOT / folder).rglob("*.py"))
    ours = {"skbgmd", "tests", "benchmarks", *(path.stem for path in files), *(path.parent.name for path in files)}
    modules = set().union(*map(needed, files)) - ours - sys.stdlib_module_names
    assert "torch" in modules
    required = names(PROJECT["dependencies"]).union(*(names(EXTRAS[extra]) for extra in extras))
    assert {BRINGS.get(module, module.replace("_", "-")) for module in modules} <= required


def test_what_tests_may_lack_is_said():
    """A package without which tests are skipped is installed for them, or named with the command that runs them."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    optional = {
        module.partition(".")[0]
        for file in (ROOT / "tests").rglob("*.py")
        for module in re.findall(r'importorskip\("([\w.]+)"', file.read_text(encoding="utf-8"))
    }
    installed = names([*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["flower"]]) | {"dask", "ray"}
    missing = {module for module in optional if module not in installed}
    assert {"onnxruntime", "lightning", "cleanlab"} <= missing
    assert {module for module in missing if not re.search(rf"\b{module}\b", page)} == set()


def test_extras_that_the_pages_name_are_there():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.rst")]
    found = re.findall(r'["`](?:skbgmd|\.)\[([\w,]+)\]', "\n".join(page.read_text(encoding="utf-8") for page in pages))
    assert {"test", "docs", "flower"} <= {name for group in found for name in group.split(",")} <= set(EXTRAS)


def test_the_version_is_said_once_and_cited():
    assert PROJECT["dynamic"] == ["version"]
    cited = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited == [skbgmd.__version__]


def test_pythons_that_are_said_to_do():
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"]).group(1)
    said = re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    assert said[0] == least
    assert list(map(int, said)) == list(range(int(least), int(said[-1]) + 1))


def test_commands_can_be_called():
    assert set(PROJECT["scripts"]) == {"skbgmd"}
    for name, value in PROJECT["scripts"].items():
        assert callable(EntryPoint(name, value, "console_scripts").load())


def test_examples_of_the_readme(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    # One after another, as they are read. Networks that users build start from torch's own generator.
    with torch.random.fork_rng():
        exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})
    assert not list(tmp_path.iterdir())
