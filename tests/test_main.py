"""The demonstration: its picture, its table, its errors."""

import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from skbgmd.__main__ import BLOCK, COORDINATE_MEDIAN, MEAN, MEDIAN, contaminated_cloud, flipped_gradients, main


def numbers_of(text):
    """The table's lines of numbers, by the first word of the paragraph they are in."""
    tables = {}
    for paragraph in text.split("\n\n"):
        lines = [line.split() for line in paragraph.splitlines() if line.lstrip()[:1].isdigit()]
        if lines:
            tables[paragraph.split()[0]] = np.array([[float(word.rstrip("%")) for word in line] for line in lines])
    return tables


def test_prints_the_table_and_draws_the_picture(tmp_path, capsys):
    output = tmp_path / "cloud.png"
    main(["--output", str(output)])

    image = matplotlib.image.imread(output)
    assert image.shape[0] > 300
    assert image.shape[1] > 2 * image.shape[0]
    assert image.std() > 0.05

    printed = capsys.readouterr().out
    assert str(output) in printed
    tables = numbers_of(printed)
    for name, columns in (("Points", 5), ("Like", 6)):
        numbers = tables[name]
        assert numbers.shape == (3, columns)
        assert numbers[:, 0].tolist() == [0, 20, 40]
        mean, median, gap = numbers[:, 1], numbers[:, 3], numbers[:, -1]
        assert (median[1:] < 0.5 * mean[1:]).all()
        assert (gap <= 1e-6).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_robust_means_stay_near_at_40_percent(seed):
    errors = contaminated_cloud(0.4, np.random.default_rng(seed)).errors()
    assert errors[MEDIAN] < 2.0 < 3.0 < errors[MEAN]
    errors = flipped_gradients(0.4, np.random.default_rng(seed)).errors()
    assert max(errors[COORDINATE_MEDIAN], errors[MEDIAN], errors[BLOCK]) < 1.0 < 30.0 < errors[MEAN]


def test_the_seed_decides(tmp_path, capsys):
    printed = []
    for seed in ("3", "3", "4"):
        main(["--output", str(tmp_path / "cloud.png"), "--seed", seed])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "missing/cloud.png"], "folder must exist; found no folder .*missing"),
        (["--output", "cloud.txt"], "must end in one of .*png.*; found .*cloud.txt"),
        (["--output", "cloud"], "must end in one of"),
        (["--seed", "-1"], "0 or more; found -1"),
        (["--seed", "x"], "invalid int value: 'x'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
    assert not list(tmp_path.iterdir())


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "skbgmd", "--help"], capture_output=True, text=True, check=True)
    assert "--output" in done.stdout
    assert "--seed" in done.stdout
