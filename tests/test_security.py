"""What the package may call: nothing that runs what a file or another rank says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import skbgmd

ROOT = Path(skbgmd.__file__).parent
#: Calls that run what they are given, by their last name. Pickles are loaded by one class, which checks what they name.
FORBIDDEN = {
    *("eval", "exec", "Unpickler", "loads", "load_pickle", "fromfile"),
    *("all_gather_object", "gather_object", "scatter_object_list", "broadcast_object_list"),
    *("send_object_list", "recv_object_list"),
}
#: Of modules and objects whose methods of such a name are harmless: JSON, and modules that are put to evaluation.
HARMLESS = {"json.loads", ".eval"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


def wrong(source):
    found = []
    for name, keywords in calls(ast.parse(source)):
        last = name.rpartition(".")[2]
        harmless = name in HARMLESS or ("." in name and f".{last}" in HARMLESS)
        loads = name in ("torch.load", "np.load", "numpy.load", "pickle.load", "joblib.load")
        if (last in FORBIDDEN and not harmless) or (loads and keywords.get("weights_only") != "True"):
            found.append(name)
    return found


def test_nothing_is_run_that_was_read():
    paths = sorted(ROOT.rglob("*.py"))
    assert len(paths) > 40
    found = {str(path.relative_to(ROOT)): wrong(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("source", "is_wrong"),
    [
        ("torch.load(file)", True),
        ("torch.load(file, weights_only=False)", True),
        ("torch.load(file, weights_only=True)", False),
        ("pickle.loads(data)", True),
        ("pickle.load(file)", True),
        ("np.load(file, allow_pickle=True)", True),
        ("eval('1')", True),
        ("module.eval()", False),
        ("json.loads(text)", False),
        ("dist.all_gather_object(found, own)", True),
        ("broadcast_object_list(found)", True),
    ],
)
def test_such_calls_are_found(source, is_wrong):
    assert bool(wrong(source)) == is_wrong
