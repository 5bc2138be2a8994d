"""Reading idx files, and what is said where they are missing or wrong."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from skbgmd.inspection import datasets
from skbgmd.inspection.datasets import DEBIAN_FASHION_MNIST, IDX_FILES, load_cifar10, load_fashion_mnist, read_idx


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def header(*sizes):
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


@pytest.fixture
def parts(rng):
    """Images and labels of a small training and test part."""
    arrays = []
    for n in (7, 3):
        arrays += [rng.integers(0, 256, size=(n, 28, 28), dtype=np.uint8), rng.integers(0, 10, size=n, dtype=np.uint8)]
    return arrays


@pytest.fixture
def folder(tmp_path, parts):
    for name, array in zip(IDX_FILES, parts, strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path


def assert_are(found, parts):
    for array, part in zip(found, parts, strict=True):
        if part.ndim == 3:
            assert array.dtype == np.float32
            assert array.shape == (len(part), 1, 28, 28)
            np.testing.assert_allclose(array[:, 0], part / 255, rtol=1e-6)
        else:
            assert array.dtype == np.int64
            np.testing.assert_array_equal(array, part)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_reads_compressed_files(folder, parts, kind):
    assert_are(load_fashion_mnist(kind(folder)), parts)


def test_reads_plain_files(tmp_path, parts):
    for name, array in zip(IDX_FILES, parts, strict=True):
        (tmp_path / name).write_bytes(idx(array))
    assert_are(load_fashion_mnist(tmp_path), parts)


def test_looks_where_debian_puts_them(folder, parts, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", folder)
    assert_are(load_fashion_mnist(), parts)
    # What is there isn't downloaded.
    monkeypatch.setattr(datasets, "fetch_openml", None)
    assert_are(load_fashion_mnist(download=True), parts)


@pytest.mark.parametrize("given", [True, False])
def test_says_how_to_get_what_is_missing(tmp_path, monkeypatch, given):
    missing = tmp_path / "missing"
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", missing)
    with pytest.raises(FileNotFoundError, match=r"missing'.*apt install dataset-fashion-mnist.*--folder"):
        load_fashion_mnist(missing if given else None)


def test_downloads_when_allowed(tmp_path, monkeypatch):
    asked = []

    def fetch(name, **settings):
        asked.append((name, settings["version"]))
        X = np.repeat(np.arange(5.0)[:, None], 784, axis=1)
        return X, np.array(["0", "1", "2", "3", "9"], dtype=object)

    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "missing")
    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    monkeypatch.setattr(datasets, "N_TRAIN", 3)
    X_train, y_train, X_test, y_test = load_fashion_mnist(download=True)
    assert asked == [("Fashion-MNIST", 1)]
    assert X_train.shape == (3, 1, 28, 28)
    assert X_test.dtype == np.float32
    assert X_test.max() == np.float32(4 / 255)
    assert y_train.tolist() == [0, 1, 2]
    assert y_test.tolist() == [3, 9]


@pytest.mark.parametrize(
    ("number", "content", "message"),
    [
        (0, b"", "magic number 00000803; found ''"),
        (0, idx(np.zeros(4, np.uint8)), "magic number 00000803; found '00000801'"),
        (1, idx(np.zeros((4, 2), np.uint8)), "magic number 00000801; found '00000802'"),
        (0, b"\0\0\x08\x03\0\0", "header of 16 bytes; found 6 bytes"),
        (0, idx(np.zeros((7, 28, 28), np.uint8))[:-1], "5488 bytes after its header; found 5487"),
        (0, idx(np.zeros((7, 28, 28), np.uint8)) + b"0", "5488 bytes after its header; found 5489"),
        (0, idx(np.zeros((7, 32, 32), np.uint8)), "28 x 28 pixels; found 32 x 32"),
        (1, idx(np.zeros(6, np.uint8)), "each of 7 images; found 6"),
        (1, idx(np.full(7, 10, np.uint8)), "from 0 to 9; found 10"),
        (0, header(2**32 - 1, 28, 28), "at most 60000 items; found 4294967295"),
        (0, header(60_001, 28, 28), "at most 60000 items; found 60001"),
        (0, header(1, 2**32 - 1, 2**32 - 1), "28 x 28 pixels; found 4294967295 x 4294967295"),
        (0, header(60_000, 28, 28), "47040000 bytes after its header; found 0"),
        (1, header(2**31), "at most 60000 items; found 2147483648"),
    ],
)
def test_wrong_files_are_named(folder, number, content, message):
    path = folder / f"{IDX_FILES[number]}.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message) as error:
        load_fashion_mnist(folder)
    assert path.name in str(error.value)


NINE = gzip.compress(idx(np.arange(9, dtype=np.uint8)), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        NINE[:-4],
        NINE[:15],
        NINE[:10],
        NINE[:12] + b"\xff\xff" + NINE[14:],
        NINE[:-8] + bytes(4) + NINE[-4:],
        NINE + b"garbage",
    ],
)
def test_broken_compression_is_named(tmp_path, content):
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.gz must be a whole gzip file"):
        read_idx(path, 1)


def test_nothing_is_unpacked_beyond_what_is_announced(folder):
    """A file of a few kilobytes that unpacks to 64 MB, and is told by its first one."""
    path = folder / f"{IDX_FILES[1]}.gz"
    bomb = gzip.compress(bytes(1 << 20), mtime=0) * 64
    path.write_bytes(gzip.compress(header(7)) + bomb)
    assert path.stat().st_size < 1 << 17
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"{path.name} must hold 7 bytes after its header; found 8 or more"):
        read_idx(path, 1)
    peak = tracemalloc.get_traced_memory()[1]
    # A size that is announced costs no memory until the bytes are there.
    (folder / "long").write_bytes(header(2**32 - 1))
    with pytest.raises(ValueError, match="must hold 4294967295 bytes after its header; found 0"):
        read_idx(folder / "long", 1)
    assert max(peak, tracemalloc.get_traced_memory()[1]) < 1 << 22
    tracemalloc.stop()


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's package dataset-fashion-mnist isn't installed")
def test_the_package_holds_all():
    X_train, y_train, X_test, y_test = load_fashion_mnist()
    assert X_train.shape == (60_000, 1, 28, 28)
    assert X_test.shape == (10_000, 1, 28, 28)
    assert (X_train.min(), X_train.max()) == (0.0, 1.0)
    assert np.bincount(y_train).tolist() == [6000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10


@pytest.fixture
def cifar(tmp_path, rng):
    for name, n in (("data_batch_1", 4), ("data_batch_2", 3), ("test_batch", 2)):
        records = rng.integers(0, 256, size=(n, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    return tmp_path


def test_cifar10(cifar):
    X, y, X_test, y_test = load_cifar10(cifar)
    assert (X.shape, X_test.shape) == ((7, 3, 32, 32), (2, 3, 32, 32))
    assert (X.dtype, y.dtype) == (np.float32, np.int64)
    first = np.frombuffer((cifar / "data_batch_1.bin").read_bytes(), np.uint8)
    assert y[0] == first[0]
    np.testing.assert_allclose(X[0].ravel(), first[1:3073] / 255, rtol=1e-6)
    assert len(y_test) == 2


def test_cifar10_missing_or_wrong(cifar, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10 must be there in its binary version; found no data_batch_1"):
        load_cifar10(tmp_path / "elsewhere")
    (cifar / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="records of 3073 bytes; found 5 bytes"):
        load_cifar10(cifar)
    (cifar / "test_batch.bin").write_bytes(bytes([77]) + bytes(3072))
    with pytest.raises(ValueError, match="labels from 0 to 9; found 77"):
        load_cifar10(cifar)


def test_cifar10_of_any_size_is_not_read(cifar):
    path = cifar / "data_batch_1.bin"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=rf"{path.name} must hold at most 10000 records of 3073 bytes; found 1099511"):
        load_cifar10(cifar)


def test_cifar10_is_downloaded_if_asked(monkeypatch):
    X, y = np.full((5, 3072), 255.0), np.array(["1", "2", "3", "4", "5"])
    monkeypatch.setattr(datasets, "fetch_openml", lambda *args, **kwargs: (X, y))
    monkeypatch.setattr(datasets, "CIFAR_TRAIN", 4)
    X_train, _, _, y_test = load_cifar10(download=True)
    assert X_train.shape == (4, 3, 32, 32)
    assert X_train.max() == 1.0
    np.testing.assert_array_equal(y_test, [5])
