"""Data that scikit-learn does not bring along: Fashion-MNIST and CIFAR-10."""

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
#: Bytes of an image of CIFAR-10 with its label, and how many images are for training.
CIFAR_RECORD, CIFAR_TRAIN = 1 + 3 * 32 * 32, 50_000

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


def load_cifar10(folder: str | Path | None = None, *, download: bool = False) -> tuple[Images, Labels, Images, Labels]:
    """CIFAR-10: colour images of ten kinds of animals and vehicles.

    Parameters
    ----------
    folder : str, Path or None, default=None
        Where the files of the binary version are, ``data_batch_1.bin`` to at most ``data_batch_5.bin`` and
        ``test_batch.bin``. None: to be downloaded.
    download : bool, default=False
        Whether to fetch all 60,000 images from OpenML. Not with a ``folder``.

    Returns
    -------
    X_train : ndarray of shape (n_train, 3, 32, 32), float32
        Images, in [0, 1].
    y_train : ndarray of shape (n_train,), int64
        Labels, 0 to 9.
    X_test : ndarray of shape (n_test, 3, 32, 32), float32
    y_test : ndarray of shape (n_test,), int64

    Raises
    ------
    FileNotFoundError
        There are no files, and no leave to download them.
    ValueError
        A file isn't made of records of one label and 3072 pixels.

    Examples
    --------
    >>> from skbgmd.datasets import load_cifar10
    >>> X_train, y_train, X_test, y_test = load_cifar10("cifar-10-batches-bin")  # doctest: +SKIP
    """
    if folder is None and download:
        X, y = fetch_openml("CIFAR_10", version=1, as_frame=False, return_X_y=True)
        images, labels = X.reshape(-1, 3, 32, 32).astype(np.float32) / 255.0, y.astype(np.int64)
        return images[:CIFAR_TRAIN], labels[:CIFAR_TRAIN], images[CIFAR_TRAIN:], labels[CIFAR_TRAIN:]
    where = Path("cifar-10-batches-bin" if folder is None else folder)
    train = sorted(where.glob("data_batch_[1-5].bin"))
    if not train or not (where / "test_batch.bin").is_file():
        raise FileNotFoundError(
            f"CIFAR-10 must be there in its binary version; found no data_batch_1.bin or test_batch.bin in "
            f"{str(where)!r}: unpack cifar-10-binary.tar.gz from its authors' page and say which folder has the files."
        )
    parts = [_read_records(path) for path in train]
    X_test, y_test = _read_records(where / "test_batch.bin")
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts]), X_test, y_test


def _read_records(path: Path) -> tuple[Images, Labels]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not data.size or data.size % CIFAR_RECORD:
        raise ValueError(f"{path} must hold records of {CIFAR_RECORD} bytes; found {data.size} bytes.")
    records = data.reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{path} must hold labels from 0 to 9; found {records[:, 0].max()}.")
    images: Images = records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255.0)
    return images, records[:, 0].astype(np.int64)


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
