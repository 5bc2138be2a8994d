"""The command: its table, its picture, its errors."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import pytest

from skbgmd import BlockGMDClassifier, __main__, __version__
from skbgmd.__main__ import command, main
from skbgmd.inspection import demonstration_display
from skbgmd.inspection.demonstration import CLEAN, KINDS, METHODS, TRAININGS, Outcome, cases
from skbgmd.inspection.demonstration_display import table

OUTCOMES = [
    Outcome(kind, fraction, method, 0, math.nan if (method, fraction) == ("plain training", 0.4) else 0.1 * place, 2.0)
    for place, (kind, fraction) in enumerate(cases())
    for method in METHODS
]
#: The shortest trainings that there are.
SHORT = ["--samples", "20", "--epochs", "1", "--seeds", "1", "--jobs", "1"]


def test_trains_prints_and_draws(tmp_path, capsys):
    output = tmp_path / "picture.png"
    main(["--output", str(output), "--samples", "100", "--epochs", "1", "--seed", "3", "--seeds", "2", "--jobs", "1"])
    printed = capsys.readouterr().out
    assert str(output) in printed
    for kind, fraction in cases():
        assert (kind if kind == CLEAN else f"{100 * fraction:.0f} % of the {kind}") in printed
    for word in ("100 samples of digits", "seeds 3 to 4", "epochs 1,", "mean ± standard deviation of 2 seeds"):
        assert word in printed
    for method in METHODS.values():
        assert method.meaning in printed
    image = matplotlib.image.imread(output)
    assert image.shape[1] > 1.5 * image.shape[0] > 600
    assert image.std() > 0.05


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
        (["--seed", str(2**32 - 4)], "--seed: all seeds must be less than 2**32; found 5 from 4294967292 on"),
        (["--seeds", "0"], "--seeds: must be 1 or more; found 0"),
        (["--jobs", "-1"], "--jobs: must be 1 or more; found -1"),
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
    with pytest.raises(SystemExit, match=r"--samples: must be at most 768, which is all there are; found 100000"):
        main(["--samples", "100000", "--output", str(tmp_path / "p.png")])


def test_missing_data_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*dataset-fashion-mnist"):
        main(["--data", "fashion-mnist", "--folder", str(tmp_path), "--output", str(tmp_path / "p.png")])


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """A command whose trainings are over at once."""
    monkeypatch.setattr(__main__, "_watched", lambda *args: OUTCOMES)
    monkeypatch.chdir(tmp_path)
    return ["--samples", "20"]


def test_a_picture_that_cannot_be_written_costs_no_table(trained, tmp_path, capsys):
    picture = tmp_path / "full.png"
    picture.symlink_to("/dev/full")
    with pytest.raises(SystemExit, match=r"error: .*full\.png can't be written: .*No space left"):
        main([*trained, "--output", str(picture)])
    printed = capsys.readouterr()
    assert table(OUTCOMES) in printed.out
    assert "saved" not in printed.out


def test_what_was_there_lasts_until_the_picture_is_whole(trained, tmp_path, monkeypatch):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"before")

    class Fails:
        def savefig(self, file, **kwargs):
            Path(file).write_bytes(b"half")
            raise OSError("no space")

    monkeypatch.setattr(demonstration_display, "draw", lambda outcomes: Fails())
    with pytest.raises(SystemExit, match="no space"):
        main([*trained, "--output", str(picture)])
    assert picture.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


class Broken(io.StringIO):
    """A stream that takes so many lines at most, or nothing."""

    def __init__(self, error, lines=0):
        super().__init__()
        self.error, self.lines = error, lines

    def flush(self):
        if self.getvalue().count("\n") > self.lines:
            raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokenPipeError(), 141), (OSError("no space"), "python -m skbgmd: error: the output can't be written: no space")],
)
def test_an_output_that_fails(trained, error, code, monkeypatch, tmp_path):
    # At the announcement, nothing is lost by stopping.
    monkeypatch.setattr(sys, "stdout", Broken(error))
    with pytest.raises(SystemExit) as left:
        main(trained)
    assert left.value.code == code
    assert not list(tmp_path.iterdir())
    # At the table, the picture is what is left of the training.
    monkeypatch.setattr(sys, "stdout", Broken(error, lines=10))
    with pytest.raises(SystemExit) as left:
        main(trained)
    assert left.value.code == code
    assert (tmp_path / "robust_training.png").is_file()
    for option in ("--help", "--version"):
        monkeypatch.setattr(sys, "stdout", Broken(error))
        with pytest.raises(SystemExit) as left:
            main([option])
        assert left.value.code == code


def test_a_closed_output_is_found_before_the_training(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit, match="standard output must be open"):
        main([])


@pytest.mark.parametrize("stream", [None, Broken(OSError("no space"))])
def test_nobody_needs_the_progress(stream, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", stream)
    main([*SHORT, "--output", str(tmp_path / "picture.png")])
    assert "Picture saved" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["--epochs", "0"])
    assert left.value.code == 2


def test_an_interrupt_ends_all_trainings_in_a_line(monkeypatch, capsys, tmp_path):
    seen = []

    def interrupts(*args, **kwargs):
        seen.append(args)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("skbgmd.inspection.demonstration.train", interrupts)
    monkeypatch.setattr(sys, "argv", ["skbgmd", *SHORT, "--output", str(tmp_path / "picture.png")])
    with pytest.raises(SystemExit) as left:
        command()
    assert left.value.code == 130
    assert len(seen) == 3
    assert capsys.readouterr().err.split("\r")[-1].strip() == "python -m skbgmd: interrupted."


def test_an_interrupt_within_a_training(monkeypatch, tmp_path):
    """A net of skorch would take it for the end of its training."""
    seen = []

    def interrupts(self, net, *args, **kwargs):
        seen.append(net)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("skorch.callbacks.EpochTimer.on_epoch_begin", interrupts)
    with pytest.raises(KeyboardInterrupt):
        main([*SHORT, "--output", str(tmp_path / "picture.png")])
    assert len(seen) == 1


@pytest.mark.parametrize("after", [0.0, 2.0])
def test_an_interrupt_ends_all_processes_in_a_line(tmp_path, after):
    """A terminal sends it to the whole group: while the processes start, and later on."""
    arguments = [sys.executable, "-m", "skbgmd", "--jobs", "2", "--output", str(tmp_path / "picture.png")]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        while "gradients:" not in running.stdout.readline():
            pass
        time.sleep(after)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    # Returns of the progress bar are read as ends of lines.
    lines = [line.strip() for line in said.splitlines() if line.strip() and "trainings/s" not in line]
    assert lines == ["python -m skbgmd: interrupted."]
    for _ in range(100):
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    raise AssertionError("processes are left")


#: Python imports it when it starts. It interrupts the process as soon as a module is looked for, or long after.
AT = """
import importlib.abc, os, signal, sys

class Interrupts(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
"""
#: Modules from the first one that is slow to the last one before the training.
EARLY = ["numpy", "torch", "torch.nn", "skorch", "skbgmd.inspection.demonstration", "matplotlib.backend_bases"]


#: The console command, as installers write it.
SCRIPT = """
import sys
from skbgmd.__main__ import command

if __name__ == "__main__":
    sys.exit(command())
"""


@pytest.fixture
def started(tmp_path):
    def start(at, *arguments, script=False, **settings):
        (tmp_path / "sitecustomize.py").write_text(AT)
        (tmp_path / "skbgmd").write_text(SCRIPT)
        paths = [str(tmp_path), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "AT": at}
        command = [sys.executable, *([str(tmp_path / "skbgmd")] if script else ["-m", "skbgmd"]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, **settings)

    return start


@pytest.mark.parametrize("at", EARLY)
def test_an_interrupt_before_the_training_is_a_line_as_well(started, at):
    done = started(at)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "python -m skbgmd: interrupted.\n")


@pytest.mark.parametrize("at", ["torch", "matplotlib.backend_bases"])
def test_the_console_command_is_as_prompt(started, at):
    done = started(at, script=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "skbgmd: interrupted.\n")


@pytest.mark.parametrize("script", [True, False])
def test_the_version_is_told_without_numpy(started, script):
    done = started("numpy", "--version", script=script)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"skbgmd {__version__}\n", "")


def test_who_ignores_interrupts_goes_on(started):
    def ignores():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    done = started("argparse", "--version", preexec_fn=ignores)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("skbgmd ")


def test_an_interrupt_without_an_error_stream(started):
    done = started("numpy", preexec_fn=lambda: os.close(2))
    assert (done.returncode, done.stdout) == (130, "")


STREAMS = """
import json, os, sys
from skbgmd.__main__ import command

def opened(how):
    if how == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    return os.open(how, os.O_WRONLY | os.O_CREAT)

for arguments, out, err in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        for descriptor, how in ((1, out), (2, err)):
            if how is None:
                os.close(descriptor)
                setattr(sys, ("stdout", "stderr")[descriptor - 1], None)
            else:
                os.dup2(opened(how), descriptor)
        sys.argv[1:] = arguments
        command()
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_real_streams_that_fail(tmp_path):
    """In children of one process, which end as processes do: to start takes long."""
    said = str(tmp_path / "said")
    cases = [
        (["--help"], "/dev/full", said),
        (["--samples", "20", "--output", str(tmp_path / "p.png")], "pipe", None),
        ([], None, None),
        (["--epochs", "0"], "/dev/null", "/dev/full"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", STREAMS, json.dumps(cases)], capture_output=True, text=True, check=True
    )
    assert list(map(int, done.stdout.split())) == [1, 141, 1, 2]
    assert done.stderr == ""
    expected = "python -m skbgmd: error: the output can't be written: [Errno 28] No space left on device\n"
    assert Path(said).read_text() == expected


def test_help_explains_the_command(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in (*METHODS, *KINDS, "coordinate", "--data", "fashion-mnist", "minute"):
        assert word in shown
    for name, training in TRAININGS.items():
        assert f"{BlockGMDClassifier(**training).max_epochs} for {name}" in shown


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_who_only_asks_does_not_wait_for_imports(option):
    code = f"""
import sys
from skbgmd.__main__ import main
try:
    main([{option!r}])
finally:
    print(sorted({{"torch", "sklearn", "matplotlib", "tqdm"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
