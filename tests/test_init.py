"""The package itself: its names are there without what it takes to import them, until they are asked for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import skbgmd

ROOT = Path(skbgmd.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)
#: Modules for a framework that need not be installed.
OPTIONAL = {"skbgmd.distributed.flower": "flwr"}


def in_another_process(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT.parent, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_all_names_are_there() -> None:
    found: dict[str, object] = {}
    exec("from skbgmd import *", found)
    assert set(skbgmd.__all__) <= set(found)
    for name in skbgmd.__all__:
        assert getattr(skbgmd, name) is found[name]
        assert getattr(importlib.import_module(found[name].__module__), name) is found[name]
    assert {*skbgmd.__all__, "__version__", "aggregators", "training", "suspects"} <= set(dir(skbgmd))
    assert not {"importlib", "pkgutil", "Any"} & set(dir(skbgmd))


def test_type_checkers_see_the_same() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    assert ast.unparse(guarded.test) == "TYPE_CHECKING"
    seen = {str(node.module).removeprefix("skbgmd."): tuple(alias.name for alias in node.names) for node in imports}
    assert sorted(name for names in seen.values() for name in names) == sorted(skbgmd.__all__)
    for room, names in seen.items():
        module = importlib.import_module(f"skbgmd.{room}")
        assert all(getattr(module, name) is getattr(skbgmd, name) for name in names)


def test_suspects_have_a_second_name() -> None:
    from skbgmd.suspects import find_suspects

    assert find_suspects is skbgmd.inspection.find_suspects is skbgmd.suspects.find_suspects
    with pytest.raises(AttributeError):
        _ = skbgmd.suspects.nothing


LAZY = """
import sys
import skbgmd
assert not {"torch", "numpy", "sklearn", "skorch"} & set(sys.modules), "imported at once"
assert "BlockGMDClassifier" in dir(skbgmd) and "aggregators" in dir(skbgmd)
assert not {"torch", "numpy"} & set(sys.modules), "dir imports"
assert skbgmd.aggregators.Mean is sys.modules["skbgmd.aggregators"].Mean
from skbgmd import BlockGMDClassifier, geometric_median, training
assert BlockGMDClassifier is training.BlockGMDClassifier is skbgmd.BlockGMDClassifier
assert "BlockGMDClassifier" in vars(skbgmd)
"""


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    in_another_process(LAZY)


WITHOUT = """
import json, sys
import skorch
before = {name.split(".")[0] for name in sys.modules}
from skbgmd import BlockGMDClassifier, geometric_median
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} - before - sys.stdlib_module_names)))
import skbgmd.corruption, skbgmd.inspection, skbgmd.training
from skbgmd.inspection import TrainingHistoryDisplay
assert "matplotlib" not in sys.modules, "imported before something is drawn"
"""


def test_estimators_import_no_package_that_skorch_does_not() -> None:
    """Neither matplotlib nor what only some of the functions need."""
    assert json.loads(in_another_process(WITHOUT)) == ["skbgmd"]


@pytest.mark.parametrize("name", ["nothing", "Tensor", "_modules_", "training.RobustNeuralNet", "__path_hooks__"])
def test_what_is_not_there(name: str) -> None:
    assert not hasattr(skbgmd, name)
    with pytest.raises(AttributeError, match=f"module 'skbgmd' has no attribute '{name}'"):
        getattr(skbgmd, name)


def test_pickles_need_no_import_before() -> None:
    fitted = skbgmd.geometric_median([[0.0], [1.0], [5.0]], return_result=True)
    things = [skbgmd.BlockGMDClassifier(beta=0.5), skbgmd.RobustNeuralNet, skbgmd.geometric_median, fitted]
    code = "import pickle, sys; print([type(thing).__name__ for thing in pickle.loads(bytes.fromhex(sys.argv[1]))])"
    found = in_another_process(code, pickle.dumps(things).hex())
    assert found.strip() == "['BlockGMDClassifier', 'type', 'function', 'GeometricMedianResult']"


EACH = """
import importlib, json, os, sys
import matplotlib.figure, scipy.optimize, skorch, sklearn.datasets, torch, tqdm
# What one of them has compiled the others read, also where Python is told to leave nothing behind.
sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[2]
failed = []
for name in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(json.dumps(failed))
"""


@pytest.mark.slow
def test_each_module_can_be_the_first(tmp_path: Path) -> None:
    """In children of a process that has what others have made: to import torch takes long."""
    modules = [name for name in MODULES if name not in OPTIONAL or importlib.util.find_spec(OPTIONAL[name])]
    assert len(modules) > 40
    assert json.loads(in_another_process(EACH, json.dumps(modules), str(tmp_path))) == []
