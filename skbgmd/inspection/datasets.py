"""Loaders of data sets that scikit-learn doesn't have: Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml

from skbgmd._utils import limits

#: Folder of Debian's package dataset-fashion-mnist.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
#: Images and labels of the two parts, as the data's authors name them.
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SIDE, N_TRAIN = 28, 60_000
#: Bytes of an image of CIFAR-10 with its label, how many images are for training, and how many a file holds at most.
CIFAR_RECORD, CIFAR_TRAIN, CIFAR_FILE = 1 + 3 * 32 * 32, 50_000, 10_000

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def load_fashion_mnist(
    folder: str | Path | None = None, *, download: bool = False
) -> tuple[Images, Labels, Images, Labels]:
    """Load Fashion-MNIST: gray images of ten kinds of clothing, 60,000 to train on and 10,000 to test.

    Parameters
    ----------
    folder : str, Path or None, default=None
        Folder of the four idx files, compressed with gzip or not. None: the folder of Debian's package
        ``dataset-fashion-mnist``.
    download : bool, default=False
        Fetch the data from OpenML if the package isn't installed. Ignored if ``folder`` is given.

    Returns
    -------
    X_train : ndarray of shape (n_train, 1, 28, 28), float32
        Images, in [0, 1].
    y_train : ndarray of shape (n_train,), int64
        Labels, 0 to 9.
    X_test : ndarray of shape (n_test, 1, 28, 28), float32
        Test images, in [0, 1].
    y_test : ndarray of shape (n_test,), int64
        Their labels, 0 to 9.

    Raises
    ------
    FileNotFoundError
        If there are no files, and ``download`` doesn't allow to fetch them.
    ValueError
        If a file doesn't hold what its name says.

    Examples
    --------
    >>> from skbgmd.inspection.datasets import load_fashion_mnist
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
    """Load CIFAR-10: color images of ten kinds of animals and vehicles.

    Parameters
    ----------
    folder : str, Path or None, default=None
        Folder of the files of the binary version, ``data_batch_1.bin`` to at most ``data_batch_5.bin`` and
        ``test_batch.bin``. None: ``cifar-10-batches-bin`` in the current folder, unless ``download=True``.
    download : bool, default=False
        Fetch all 60,000 images from OpenML. Ignored if ``folder`` is given.

    Returns
    -------
    X_train : ndarray of shape (n_train, 3, 32, 32), float32
        Images, in [0, 1].
    y_train : ndarray of shape (n_train,), int64
        Labels, 0 to 9.
    X_test : ndarray of shape (n_test, 3, 32, 32), float32
        Test images, in [0, 1].
    y_test : ndarray of shape (n_test,), int64
        Their labels, 0 to 9.

    Raises
    ------
    FileNotFoundError
        If there are no files, and ``download`` doesn't allow to fetch them.
    ValueError
        If a file isn't made of records of one label and 3072 pixels.

    Examples
    --------
    >>> from skbgmd.inspection.datasets import load_cifar10
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
    most = CIFAR_FILE * CIFAR_RECORD
    if path.stat().st_size > most:
        raise ValueError(
            f"{path} must hold at most {CIFAR_FILE} records of {CIFAR_RECORD} bytes; found {path.stat().st_size} bytes."
        )
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not data.size or data.size % CIFAR_RECORD:
        raise ValueError(f"{path} must hold records of {CIFAR_RECORD} bytes; found {data.size} bytes.")
    records = data.reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{path} must hold labels from 0 to 9; found {records[:, 0].max()}.")
    images: Images = records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255.0)
    return images, records[:, 0].astype(np.int64)


def read_idx(path: Path, n_dimensions: int, *, of_item: tuple[int, ...] = (), n_at_most: int | None = None) -> Bytes:
    """Read bytes from a file in the idx format.

    The format is a magic number (two zero bytes, 8 for unsigned bytes, the number of dimensions), the sizes as
    big-endian 32-bit integers, and the bytes. Nothing is unpacked beyond what the sizes announce.

    Parameters
    ----------
    path : Path
        The file; compressed with gzip if it ends in .gz.
    n_dimensions : int
        Number of dimensions that it must have.
    of_item : tuple of int, default=()
        Sizes that all dimensions but the first must have; none: any.
    n_at_most : int or None, default=None
        The largest size that the first may have.

    Returns
    -------
    ndarray of uint8

    Raises
    ------
    ValueError
        It is of another format, has other dimensions, or is not as long as it says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _read_header(file, path, n_dimensions)
            if of_item and shape[1:] != of_item:
                sides, found = (" x ".join(map(str, sizes)) for sizes in (of_item, shape[1:]))
                raise ValueError(f"{path} must hold images of {sides} pixels; found {found}.")
            if n_at_most is not None and shape[0] > n_at_most:
                raise ValueError(f"{path} must hold at most {n_at_most} items; found {shape[0]}.")
            size = math.prod(shape)
            data = _read(file, size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file; found {error}") from error
    if len(data) != size:
        more = " or more" if len(data) > size else ""
        raise ValueError(f"{path} must hold {size} bytes after its header; found {len(data)}{more}.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_header(file: BufferedIOBase, path: Path, n_dimensions: int) -> tuple[int, ...]:
    start = 4 + 4 * n_dimensions
    header, magic = file.read(start), bytes([0, 0, 8, n_dimensions])
    if header[:4] != magic:
        raise ValueError(f"{path} must begin with the idx magic number {magic.hex()}; found {header[:4].hex()!r}.")
    if len(header) < start:
        raise ValueError(f"{path} must have an idx header of {start} bytes; found {len(header)} bytes.")
    return struct.unpack(f">{n_dimensions}I", header[4:])


def _read(file: BufferedIOBase, size: int) -> bytearray:
    """Read at most ``size`` bytes of a file."""
    data = bytearray()
    while chunk := file.read(min(limits.READ_BYTES, size - len(data))):
        data += chunk
    return data


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
    X = read_idx(images, 3, of_item=(SIDE, SIDE), n_at_most=N_TRAIN)
    y = read_idx(labels, 1, n_at_most=N_TRAIN)
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
