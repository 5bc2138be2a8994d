"""Data sets that scikit-learn doesn't have at hand."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml

#: Where Debian's package dataset-fashion-mnist puts its files.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
#: Images and labels of the two parts, as the data's authors name them.
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SIDE, N_TRAIN = 28, 60_000

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def load_fashion_mnist(
    folder: str | Path | None = None, *, download: bool = False
) -> tuple[Images, Labels, Images, Labels]:
    """Fashion-MNIST: grey images of ten kinds of clothing, 60,000 to train on and 10,000 to test.

    Parameters
    ----------
    folder : str, Path or None, default=None
        Where its four idx files are, compressed with gzip or not. None: where Debian's package
        ``dataset-fashion-mnist`` puts them.
    download : bool, default=False
        Whether to fetch them from OpenML where the package isn't installed. Not with a ``folder``.

    Returns
    -------
    X_train : ndarray of shape (n_train, 1, 28, 28), float32
        Images, in [0, 1].
    y_train : ndarray of shape (n_train,), int64
        Labels, 0 to 9.
    X_test : ndarray of shape (n_test, 1, 28, 28), float32
    y_test : ndarray of shape (n_test,), int64

    Raises
    ------
    FileNotFoundError
        There are no files, and no leave to download them.
    ValueError
        A file isn't what its name says.

    Examples
    --------
    >>> from skbgmd.datasets import load_fashion_mnist
    >>> X_train, y_train, X_test, y_test = load_fashion_mnist()  # doctest: +SKIP
    >>> X_train.shape  # doctest: +SKIP
    (60000, 1, 28, 28)
    """
    if folder is not None:
        return _read_parts(Path(folder))
    if download and not DEBIAN_FASHION_MNIST.is_dir():
        return _fetch()
    return _read_parts(DEBIAN_FASHION_MNIST)


def read_idx(path: Path, n_dimensions: int) -> NDArray[np.uint8]:
    """Read bytes from a file in the idx format.

    The format is a magic number (two zero bytes, 8 for unsigned bytes, the number of dimensions), the sizes as
    big-endian 32-bit integers, and the bytes.

    Parameters
    ----------
    path : Path
        The file; compressed with gzip if it ends in .gz.
    n_dimensions : int
        How many dimensions it must have.

    Returns
    -------
    ndarray of uint8

    Raises
    ------
    ValueError
        It is of another format, has other dimensions, or is not as long as it says.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError) as error:
        if isinstance(error, EOFError | gzip.BadGzipFile):
            raise ValueError(f"{path} must be a whole gzip file; found {error}") from error
        raise
    magic = bytes([0, 0, 8, n_dimensions])
    if data[:4] != magic:
        raise ValueError(f"{path} must begin with the idx magic number {magic.hex()}; found {data[:4].hex()!r}.")
    start = 4 + 4 * n_dimensions
    if len(data) < start:
        raise ValueError(f"{path} must have an idx header of {start} bytes; found {len(data)} bytes.")
    shape = struct.unpack(f">{n_dimensions}I", data[4:start])
    size = int(np.prod(shape, dtype=np.int64))
    if len(data) != start + size:
        raise ValueError(f"{path} must hold {size} bytes after its header; found {len(data) - start}.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read_parts(folder: Path) -> tuple[Images, Labels, Images, Labels]:
    paths = []
    for name in IDX_FILES:
        found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if not found:
            raise FileNotFoundError(
                f"Fashion-MNIST must be there as idx files; found no {name} or {name}.gz in {str(folder)!r}: install "
                "Debian's package with `apt install dataset-fashion-mnist`, or say which folder has the files "
                "(on the command line with --folder)."
            )
        paths.append(found[0])
    X_train, y_train = _part(*paths[:2])
    X_test, y_test = _part(*paths[2:])
    return X_train, y_train, X_test, y_test


def _part(images: Path, labels: Path) -> tuple[Images, Labels]:
    X, y = read_idx(images, 3), read_idx(labels, 1)
    if X.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"{images} must hold images of {SIDE} x {SIDE} pixels; found {X.shape[1]} x {X.shape[2]}.")
    if len(X) != len(y):
        raise ValueError(f"{labels} must hold a label for each of {len(X)} images; found {len(y)}.")
    if len(y) and y.max() > 9:
        raise ValueError(f"{labels} must hold labels from 0 to 9; found {y.max()}.")
    return _scaled(X), y.astype(np.int64)


def _scaled(X: NDArray[Any]) -> Images:
    images: Images = X.reshape(-1, 1, SIDE, SIDE).astype(np.float32)
    images /= 255.0
    return images


def _fetch() -> tuple[Images, Labels, Images, Labels]:
    X, y = fetch_openml("Fashion-MNIST", version=1, as_frame=False, return_X_y=True)
    images, labels = _scaled(X), y.astype(np.int64)
    return images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:]
