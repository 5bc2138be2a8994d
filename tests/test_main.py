"""The command: its table, its picture, its errors."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch

from skbgmd.__main__ import draw, main, table
from skbgmd.demonstration import CLEAN, METHODS, Outcome, cases

OUTCOMES = [
    Outcome(kind, fraction, method, math.nan if (method, fraction) == ("SGD", 0.4) else 0.1 * place, 2.0)
    for place, (kind, fraction) in enumerate(cases())
    for method in METHODS
]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_trains_prints_and_draws(tmp_path, capsys):
    output = tmp_path / "picture.png"
    main(["--output", str(output), "--samples", "100", "--epochs", "1"])
    printed = capsys.readouterr().out
    assert str(output) in printed
    for kind, fraction in cases():
        assert (kind if kind == CLEAN else f"{100 * fraction:.0f} % of the {kind}") in printed
    image = matplotlib.image.imread(output)
    assert image.shape[1] > 1.5 * image.shape[0] > 600
    assert image.std() > 0.05


def test_the_table():
    lines = table(OUTCOMES).splitlines()
    assert len(lines) == len(cases()) + 2
    assert all(method in lines[0] for method in METHODS)
    assert lines[1].split() == ["nothing", *["0.0"] * len(METHODS)]
    assert lines[3].split("diverged")[0].strip() == "40 % of the gradients"
    assert lines[-1].count("2.0 s") == len(METHODS)
    assert len({len(line) for line in lines}) == 1


def test_the_picture_has_a_panel_for_each_kind():
    figure = draw(OUTCOMES)
    assert [panel.get_title() for panel in figure.axes] == ["corrupt gradients", "corrupt features", "corrupt labels"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*METHODS, "diverged"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--epochs", "0"], "--epochs: must be 1 or more; found 0"),
        (["--samples", "3"], "--samples: must be 20 or more; found 3"),
        (["--folder", "."], "--folder: must come with --data fashion-mnist"),
        (["--output", "none/picture.png"], "the folder must exist"),
        (["--output", "picture.doc"], "the file must end in one of"),
        (["--output", "picture.pgf"], "the file must end in one of"),
        (["--data", "cifar"], "invalid choice"),
        (["--output", "folder.png"], "--output: must be a file; found the folder"),
        (["--output", "sealed.png"], "--output: must be writable"),
        (["--seed", str(2**32)], "--seed: must be less than 2**32"),
    ],
)
def test_errors_come_before_the_training(arguments, match, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "sealed.png").touch()
    # Nothing is sealed to an administrator.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "sealed.png")
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert match in capsys.readouterr().err


def test_there_are_only_so_many_samples(tmp_path):
    with pytest.raises(SystemExit, match=r"--samples: must be at most 1,?\d+, which is all there are; found 100000"):
        main(["--samples", "100000", "--output", str(tmp_path / "p.png")])


def test_missing_data_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*dataset-fashion-mnist"):
        main(["--data", "fashion-mnist", "--folder", str(tmp_path), "--output", str(tmp_path / "p.png")])


def test_help_explains_the_command():
    shown = subprocess.run([sys.executable, "-m", "skbgmd", "--help"], capture_output=True, text=True, check=True)
    for word in ("gradients", "coordinate", "--data", "fashion-mnist", "minute"):
        assert word in shown.stdout
