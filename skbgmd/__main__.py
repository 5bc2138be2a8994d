"""The demonstration: ``python -m skbgmd`` trains on corrupt data, prints a table and draws a picture."""

from __future__ import annotations

if __name__ == "__main__":
    # The imports below take seconds.
    from skbgmd._utils.starting import leave_when_interrupted

    leave_when_interrupted()

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from skbgmd import __version__
from skbgmd._utils.saving import written_whole
from skbgmd._utils.starting import (
    INTERRUPTED,
    MESSAGE,
    PROGRAM,
    interrupts_held_back,
    leave_when_interrupted,
    raise_when_interrupted,
)
from skbgmd._utils.streams import LenientStream, discard

if TYPE_CHECKING:
    from skbgmd.inspection.demonstration import Data, Outcome

#: Exit code by which shells know what SIGPIPE has ended.
UNREAD = 141
NETWORKS = {"digits": "a perceptron with 100 hidden units", "fashion-mnist": "LeNet, with 1,163,978 parameters,"}


class _Parser(argparse.ArgumentParser):
    """Parser that reports failures to write its help."""

    def error(self, message: str) -> NoReturn:
        """Exit with a message, if there is a stream to write it to."""
        if sys.stderr is None:
            self.exit(2)
        super().error(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout and message:
            _print(message, end="")
        elif file is not None:
            # The exit code of an error still tells.
            LenientStream(file).write(message)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with a message if it is invalid.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None: the process's own.

    Returns
    -------
    Namespace
        With ``data``, ``folder``, ``samples``, ``epochs``, ``output``, ``seed``, ``seeds`` and ``jobs``.
    """
    parser = _Parser(
        prog=PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_description(),
    )
    parser.add_argument(
        "--data", choices=tuple(NETWORKS), default="digits", help="training data (default: %(default)s)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="folder of Fashion-MNIST's idx files (default: that of Debian's package dataset-fashion-mnist)",
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="train on N samples, drawn at random (default: all there are)"
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the data (default: 100 for digits, 20 for fashion-mnist)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("robust_training.png"),
        metavar="FILE",
        help="file of the picture; its ending sets the format (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="first seed of all that is random (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="number of seeds, one after another (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="number of processes (default: one for each core, and at most 8)"
    )
    parser.add_argument("--version", action="version", version=f"skbgmd {__version__}")
    arguments = parser.parse_args(argv)
    for name, least in (("samples", 20), ("epochs", 1), ("seed", 0), ("seeds", 1), ("jobs", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"argument --{name}: must be {least} or more; found {value}.")
    if arguments.seed + arguments.seeds > 2**32:
        parser.error(
            f"argument --seed: all seeds must be less than 2**32; found {arguments.seeds} from {arguments.seed} on."
        )
    if arguments.folder is not None and arguments.data != "fashion-mnist":
        parser.error(f"argument --folder: must come with --data fashion-mnist; found --data {arguments.data}.")
    _check_output(parser, arguments.output)
    return arguments


def _check_output(parser: argparse.ArgumentParser, output: Path) -> None:
    # Checked before the training rather than after it.
    from matplotlib.backend_bases import FigureCanvasBase

    if not output.parent.is_dir():
        parser.error(f"argument --output: the folder must exist; found no folder {str(output.parent)!r}.")
    if output.is_dir():
        parser.error(f"argument --output: must be a file; found the folder {str(output)!r}.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        parser.error(f"argument --output: must be writable; found {str(output)!r}, which isn't.")
    # pgf needs TeX, which may not be installed.
    formats = {name for name in FigureCanvasBase.get_supported_filetypes() if name != "pgf"}
    if output.suffix[1:].lower() not in formats:
        parser.error(
            f"argument --output: the file must end in one of {', '.join(sorted(formats))}; found {str(output)!r}."
        )


def _description() -> str:
    # The words of the experiment, without the seconds that its imports take.
    return f"""\
Train a network in four ways on data of which a part is wrong, test it on clean data, print a table of accuracies
(means of several seeds, with their standard deviations) and draw them. All else is the same for the four:

  plain training:   the mean of a batch's gradients, as in any other training loop
  geometric median: of the gradients of groups of samples
  paper's BGMD:     block coordinate geometric median descent to the letter, on groups of samples
  skbgmd's default: BlockGMDClassifier() as it comes

Nothing, 20 % and 40 % of the labels, features or gradients are corrupt.

With --data digits, {NETWORKS["digits"]} learns scikit-learn's digits: no download, two to three minutes
on two idle cores. With --data fashion-mnist, LeNet learns Fashion-MNIST, which takes much longer: begin with
--samples 500 --seeds 1."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demonstration.

    Parameters
    ----------
    argv : sequence of str, default=None
        Command-line arguments; None: the process's own.

    Raises
    ------
    SystemExit
        The command line can't be followed, there are no data, or the table or the picture can't be written.
    """
    if sys.stdout is None:
        raise _left("the standard output must be open, for the table to be printed.")
    arguments = parse_arguments(argv)
    from skbgmd.inspection import demonstration, demonstration_display

    raise_when_interrupted()
    data = _load(arguments)
    training = dict(demonstration.TRAININGS[arguments.data])
    if arguments.epochs is not None:
        training["max_epochs"] = arguments.epochs
    _print(_announcement(arguments.data, data, training))
    start = time.perf_counter()
    outcomes = _watched(data, training, arguments.jobs)
    seconds = time.perf_counter() - start
    spread = f", mean ± standard deviation of {len(data)} seeds" if len(data) > 1 else ""
    try:
        _print(
            f"\nAccuracy on clean test data in %{spread}:\n\n{demonstration_display.table(outcomes)}\n\n"
            f"{demonstration_display.legend()}\n"
        )
    finally:
        # The picture is left of the result, where the table can't be printed.
        _save(outcomes, arguments.output)
    _print(f"Trained for {seconds:.0f} s. Picture saved to {arguments.output}")


def _load(arguments: argparse.Namespace) -> dict[int, Data]:
    from skbgmd.inspection.demonstration import digits, fashion_mnist, subset

    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    try:
        if arguments.data == "digits":
            data = {seed: digits(seed) for seed in seeds}
        else:
            data = dict.fromkeys(seeds, fashion_mnist(arguments.folder))
    except (OSError, ValueError) as error:
        raise _left(str(error)) from error
    if arguments.samples is None:
        return data
    n_samples = len(data[arguments.seed].X_train)
    if arguments.samples > n_samples:
        raise _left(
            f"argument --samples: must be at most {n_samples}, which is all there are; found {arguments.samples}."
        )
    return {seed: subset(data[seed], arguments.samples, seed) for seed in seeds}


def command() -> None:
    """Run the demonstration as a process of its own, with one line on an interrupt."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened would get the descriptor of a standard stream.
            os.open(os.devnull, os.O_RDWR)
    leave_when_interrupted()
    try:
        main()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            LenientStream(sys.stderr).write(MESSAGE)
        raise SystemExit(INTERRUPTED) from None


def _left(reason: str) -> SystemExit:
    return SystemExit(f"{PROGRAM}: error: {reason}")


def _print(text: str, end: str = "\n") -> None:
    """Print and flush; exit if the output can't be written."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            # The reader has stopped, which is no error to report.
            raise SystemExit(UNREAD) from None
        raise _left(f"the output can't be written: {error}") from None


def _save(outcomes: Sequence[Outcome], output: Path) -> None:
    from skbgmd.inspection import demonstration_display

    try:
        with written_whole({"picture": output}) as files:
            demonstration_display.draw(outcomes).savefig(files["picture"], dpi=150, format=output.suffix[1:].lower())
    except OSError as error:
        raise _left(str(error)) from None


def _announcement(name: str, data: Mapping[int, Data], training: Mapping[str, Any]) -> str:
    from skbgmd.inspection.demonstration import KINDS, described

    kinds = "\n".join(f"  {kind + ':':<11}{meaning}" for kind, meaning in KINDS.items())
    first, *_, last = [*data] * 2
    seeds = f"seeds {first} to {last}" if len(data) > 1 else f"seed {first}"
    return (
        f"Training {NETWORKS[name]} on {len(data[first].X_train):,} samples of {name}, testing on "
        f"{len(data[first].X_test):,} clean ones, with {seeds}.\n"
        f"{described(training)}. Corrupt are\n{kinds}"
    )


def _watched(data: Mapping[int, Data], training: Mapping[str, Any], n_jobs: int | None) -> list[Outcome]:
    from skbgmd.inspection.demonstration import METHODS, cases, run

    n_trainings = len(cases()) * len(METHODS) * len(data)
    shown: Any = {"unit": " trainings", "leave": False, "dynamic_ncols": True}
    with ExitStack() as stack:
        # A bar that is half made complains when it is dropped.
        with interrupts_held_back():
            from tqdm import tqdm

            bar = tqdm(total=n_trainings, file=LenientStream(sys.stderr), disable=sys.stderr is None, **shown)
            stack.enter_context(bar)
        return run(data, training, n_jobs=n_jobs, progress=bar.update)


if __name__ == "__main__":
    command()
