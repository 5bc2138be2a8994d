"""The package's rooms: what there is, and which of them may import which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import skbgmd

ROOT = Path(skbgmd.__file__).parent
TESTS = Path(__file__).parent
#: What each room may import, besides itself: the arrows of the layout, from right to left.
MAY_IMPORT = {
    "_utils": set(),
    "rows": {"_utils"},
    "location": {"_utils", "rows"},
    "ghost": {"_utils", "rows"},
    "aggregators": {"_utils", "rows", "location"},
    "corruption": {"_utils"},
    "training": {"_utils", "rows", "location", "ghost", "aggregators"},
    "distributed": {"_utils", "rows", "location", "ghost", "aggregators", "training"},
    "inspection": {"_utils", "rows", "aggregators", "corruption", "training"},
    "__main__": {"_utils", "inspection"},
    "__init__": {"location", "training", "inspection"},
}
#: Likewise for the rooms of ``training``, besides its modules of losses and of ranks: what others stand on comes first.
MAY_IMPORT_IN_TRAINING = {
    "_data": set(),
    "_lifecycle": {"_data"},
    "_strength": {"_data", "_lifecycle"},
    "_step": {"_data", "_lifecycle"},
}
MODULES = sorted(ROOT.rglob("*.py"))
#: Modules without anything to test: names of types, protocols, and thresholds.
NOTHING_TO_TEST = {"_utils/limits.py", "_utils/typing.py"}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "skbgmd" and name != "skbgmd"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_root_is_the_list_of_features():
    entries = {path.name for path in ROOT.iterdir() if path.name not in ("__pycache__", "py.typed")}
    assert entries == {f"{name}.py" if name.startswith("__") else name for name in MAY_IMPORT}
    assert len(entries - {"__init__.py"}) <= 10


def test_imports_go_one_way():
    wrong = {}
    for path in MODULES:
        room = room_of(path)
        others = {name.split(".")[1] for name in imported(path)} - {room}
        if not others <= MAY_IMPORT[room]:
            wrong[str(path.relative_to(ROOT))] = others - MAY_IMPORT[room]
    assert wrong == {}


@pytest.mark.parametrize("room", MAY_IMPORT_IN_TRAINING)
def test_imports_in_training_go_one_way(room):
    paths = [path for path in MODULES if path.parent == ROOT / "training" / room]
    found = {name.removeprefix("skbgmd.training.").split(".")[0] for path in paths for name in imported(path)}
    others = {
        name for name in found if (ROOT / "training" / name).is_dir() or (ROOT / "training" / f"{name}.py").is_file()
    }
    assert others - {room} <= {"_losses", "_ranks"} | MAY_IMPORT_IN_TRAINING[room]


def test_modules_import_no_circle():
    names = {".".join(("skbgmd", *path.relative_to(ROOT).with_suffix("").parts)): path for path in MODULES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    waiting = {name: imported(path) & set(names) - {name} for name, path in names.items()}
    while ready := {name for name, needs in waiting.items() if not needs}:
        waiting = {name: needs - ready for name, needs in waiting.items() if name not in ready}
    assert not waiting


def mirrored(path: Path) -> bool:
    """Whether a module has something to test."""
    inside = path.relative_to(ROOT)
    return not (path.stem == "__init__" or inside.as_posix() in NOTHING_TO_TEST)


def has_test_file(path):
    folder = TESTS / path.parent.relative_to(ROOT)
    stem = path.stem.strip("_")
    return any((folder / name).is_file() for name in (f"test_{stem}.py", f"test_{folder.name}_{stem}.py"))


def test_each_module_has_its_test_file():
    """At the same place below tests; the folder's name comes first where another folder has a module of that name."""
    paths = list(filter(mirrored, MODULES))
    assert len(paths) > 40
    assert [str(path.relative_to(ROOT)) for path in paths if not has_test_file(path)] == []


def test_names_of_test_files_are_unique():
    names = [path.name for path in TESTS.rglob("*.py") if not path.name.startswith("__")]
    assert len(names) == len(set(names))


#: Functions of torch that make tensors on the default device, which is the user's, unless they are told another.
MAKERS = {
    *("arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal"),
    *("ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "sparse_coo_tensor", "tensor", "zeros"),
}


def test_tensors_are_made_on_a_device_that_is_named():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in MAKERS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and "device" not in {keyword.arg for keyword in node.keywords}
    ]
    assert not found
