"""The demonstration: ``python -m skbgmd`` trains on corrupt data, prints a table and draws a picture."""

from __future__ import annotations

if __name__ == "__main__":
    # The imports below take seconds.
    from skbgmd._utils.starting import leave_when_interrupted

    leave_when_interrupted()

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from skbgmd import __version__
from skbgmd._utils.saving import written_whole
from skbgmd._utils.starting import INTERRUPTED, MESSAGE, PROGRAM, raise_when_interrupted
from skbgmd._utils.streams import LenientStream, discard
from skbgmd.inspection.demonstration import (
    KINDS,
    METHODS,
    TRAININGS,
    Data,
    Outcome,
    Training,
    cases,
    digits,
    fashion_mnist,
    run,
    subset,
)
from skbgmd.inspection.demonstration_display import draw, table

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
        With ``data``, ``folder``, ``samples``, ``epochs``, ``output`` and ``seed``.
    """
    parser = _Parser(
        prog=PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_description(),
    )
    parser.add_argument(
        "--data", choices=tuple(TRAININGS), default="digits", help="training data (default: %(default)s)"
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
    epochs = ", ".join(f"{training.epochs} for {name}" for name, training in TRAININGS.items())
    parser.add_argument("--epochs", type=int, metavar="N", help=f"passes over the data (default: {epochs})")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("robust_training.png"),
        metavar="FILE",
        help="file of the picture; its ending sets the format (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of all that is random (default: %(default)s)"
    )
    parser.add_argument("--version", action="version", version=f"skbgmd {__version__}")
    arguments = parser.parse_args(argv)
    for name, least in (("samples", 20), ("epochs", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"argument --{name}: must be {least} or more; found {value}.")
    if arguments.seed >= 2**32:
        parser.error(f"argument --seed: must be less than 2**32; found {arguments.seed}.")
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
    kinds = "\n".join(f"  {kind + ':':<11}{meaning}" for kind, meaning in KINDS.items())
    return f"""\
Train a network by six rules on data of which a part is corrupt, test it on clean data, print a table of
accuracies and draw them. The rules combine the gradients of a batch's groups of samples to one: their mean
(plain SGD), the coordinate-wise median, the geometric median, and the geometric median on a block of coordinates,
BGMD, as its paper has it and as it is here. The last is the estimators' default, which judges single samples
rather than groups. All else is the same for all of them.
Nothing, 20 % and 40 % of these are corrupt:

{kinds}

With --data digits, {NETWORKS["digits"]} learns scikit-learn's digits: no download, about a minute.
With --data fashion-mnist, LeNet learns Fashion-MNIST; an epoch on all of it takes hours without a GPU, one of
--samples 2000 minutes, which is too few to learn much."""


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
    try:
        data = digits(arguments.seed) if arguments.data == "digits" else fashion_mnist(arguments.folder)
    except (OSError, ValueError) as error:
        raise _left(str(error)) from error
    if arguments.samples is not None:
        if arguments.samples > len(data.X_train):
            raise _left(
                f"argument --samples: must be at most {len(data.X_train)}, which is all there are; found "
                f"{arguments.samples}."
            )
        data = subset(data, arguments.samples, arguments.seed)
    training = TRAININGS[arguments.data]
    if arguments.data == "digits":
        # In so small a network, a second thread only waits, and on a busy machine is waited for.
        torch.set_num_threads(1)
    if arguments.epochs is not None:
        training = dataclasses.replace(training, epochs=arguments.epochs)
    _print(_announcement(arguments.data, data, training))
    start = time.perf_counter()
    outcomes = _watched(data, training, arguments.seed)
    try:
        _print(f"\nAccuracy on clean test data, in %:\n{table(outcomes)}\n")
    finally:
        # The picture is left of the result, where the table can't be printed.
        _save(outcomes, arguments.output)
    _print(f"Trained for {time.perf_counter() - start:.0f} s. Picture saved to {arguments.output}")


def command() -> None:
    """Run the demonstration as a process of its own, with one line on an interrupt."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened would get the descriptor of a standard stream.
            os.open(os.devnull, os.O_RDWR)
    try:
        raise_when_interrupted()
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
    try:
        with written_whole({"picture": output}) as files:
            draw(outcomes).savefig(files["picture"], dpi=150, format=output.suffix[1:].lower())
    except OSError as error:
        raise _left(str(error)) from None


def _announcement(name: str, data: Data, training: Training) -> str:
    kinds = "\n".join(f"  {kind + ':':<11}{meaning}" for kind, meaning in KINDS.items())
    return (
        f"Training {NETWORKS[name]} on {len(data.X_train):,} samples of {name}, testing on {len(data.X_test):,}.\n"
        f"Plain gradient steps: epochs {training.epochs}, learning rate {training.lr:g}, batches of "
        f"{training.batch_size} samples in groups of {training.group_size}.\n"
        f"The rules differ in nothing but how they combine the groups' gradients, and the last in that its groups are\n"
        f"single samples. Corrupt are\n{kinds}"
    )


def _watched(data: Data, training: Training, seed: int) -> list[Outcome]:
    n_samples = len(cases()) * len(METHODS) * training.epochs * len(data.X_train)
    shown: Any = {"unit": " samples", "unit_scale": True, "leave": False, "dynamic_ncols": True}
    with tqdm(total=n_samples, file=LenientStream(sys.stderr), disable=sys.stderr is None, **shown) as bar:
        return list(run(data, training, seed=seed, progress=bar.update))


if __name__ == "__main__":
    command()
