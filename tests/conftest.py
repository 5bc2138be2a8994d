"""Seeds, data, and a zoo of hard matrices that every rule has to get through."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from unittest import mock

# SciPy reads it when it is imported; without it scikit-learn skips its checks of array inputs.
os.environ["SCIPY_ARRAY_API"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from skbgmd._utils import limits
from skbgmd.aggregators import Aggregator, get_aggregator
from skbgmd.location.paths import choice

settings.register_profile(
    "default", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")


@pytest.fixture
def rng():
    return np.random.default_rng(20211)


@pytest.fixture
def forked():
    """For tests that draw from torch's global generator: it is seeded, and then as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def data(rng):
    X = rng.normal(size=(160, 4))
    return X, np.where(X[:, 0] - X[:, 1] > 0, "yes", "no")


@pytest.fixture
def line(rng):
    X = rng.normal(size=(200, 3))
    return X, X @ [1.0, -2.0, 0.5] + 3.0


def halves(n: int, seed: int, others: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Zeros and thousands (n,) with integer weights, those of zeros ``others`` times as heavy in all."""
    rng = np.random.default_rng(seed)
    values, weights = 1000.0 * (rng.permutation(n) < n // 2), rng.integers(1, 8, size=n)
    first = values == 0.0
    # One of the weights is raised until it comes out even.
    while (missing := others * weights[~first].sum() - weights[first].sum()) != 0:
        weights[first.argmax() if missing > 0 else (~first).argmax()] += max(missing, 1)
    return values, weights


def vertex(multiplicity: float, n: int = 24, d: int = 3, seed: int = 0) -> np.ndarray:
    """Unit vectors whose sum has a norm of multiplicity - 1/2, and that many rows at the origin: a vertex optimum."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, d))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for _ in range(200):
        pull = u.sum(axis=0)
        u -= 0.1 * (pull - pull / np.linalg.norm(pull) * (multiplicity - 0.5)) / n * 10
        u /= np.linalg.norm(u, axis=1, keepdims=True)
    return np.vstack([u, np.zeros((int(multiplicity), d))])


def zoo() -> dict[str, np.ndarray]:
    """Named matrices (float64), both with few rows and with few columns."""
    rng = np.random.default_rng(7)
    few_rows, few_columns = rng.normal(size=(15, 40)), rng.normal(size=(60, 3))
    matrices = {"few rows": few_rows, "few columns": few_columns}
    for size in (1e6, 1e20):
        for name, X in (("few rows", few_rows), ("few columns", few_columns)):
            far = X.copy()
            far[: int(0.4 * len(X))] *= size
            matrices[f"{name}, outliers {size:g}"] = far
            shifted = X.copy()
            shifted[: int(0.4 * len(X))] += size
            matrices[f"{name}, shifted outliers {size:g}"] = shifted
    clusters = rng.normal(size=(101, 4)) * 1e-3
    clusters[:49] += 5.0
    wide = rng.normal(size=(51, 80)) * 1e-3
    wide[:25] += 5.0
    line = rng.normal(size=(11, 1)) * rng.normal(size=7) + 3.0
    matrices |= {
        "clusters": clusters,
        "clusters, few rows": wide,
        "identical": np.ones((5, 3)) * 0.1,
        "one row": few_rows[:1],
        "two rows": few_rows[:2],
        "one column": few_columns[:31, :1],
        "one column, even": few_columns[:30, :1],
        "collinear": line,
        "collinear, even": line[:10],
        "collinear, many rows": np.repeat(line, 3, axis=0)[:, :2],
        "majority of duplicates": np.vstack([np.repeat(few_rows[:1], 9, axis=0), few_rows[1:8]]),
        # Equal but for rounding: their distances are nothing but that.
        "majority of duplicates, rounded": np.vstack(
            [few_rows[0] * (1.0 + 2.0**-52 * rng.integers(0, 3, size=(9, 40))), few_rows[1:8]]
        ),
        "duplicates": np.repeat(few_columns[:9], 3, axis=0),
        "vertex": vertex(3),
        "vertex, few rows": np.hstack([vertex(3), np.zeros((27, 30))]),
        "offset": few_rows + 1e8,
        "offset, few columns": few_columns + 1e8,
        "tiny": few_rows * 1e-12,
        "large": few_columns * 1e12,
        "square": rng.normal(size=(12, 12)),
        "symmetric": np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]]),
        # The mean of these rows is a row that isn't the optimum: plain Weiszfeld stops there.
        "mean on a row": np.array([[-3.0, 0.0], [1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [0.0, 0.0]]),
    }
    return matrices


ZOO = zoo()


def seeded_rule(name: str) -> Aggregator:
    """An aggregator by its name, with a seed where it draws at random."""
    rule = get_aggregator(name)
    return rule.set_params(random_state=0) if "random_state" in rule.get_params() else rule


def extremes(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Named matrices at the ends of a dtype's range, both with few rows and with few columns."""
    rng = np.random.default_rng(11)
    info = torch.finfo(dtype)
    smallest, largest = info.tiny * info.eps, info.max
    matrices = {}
    for name, shape in (("few rows", (11, 30)), ("few columns", (31, 3)), ("one column", (9, 1))):
        signs = rng.choice([-1.0, 1.0], size=shape)
        whole = torch.from_numpy(signs * rng.integers(1, 9, size=shape))
        ordinary = torch.from_numpy(signs * rng.uniform(0.2, 1.0, size=shape))
        far = torch.arange(shape[0])[:, None] < 0.3 * shape[0]
        kinds = {
            "denormal": whole * smallest,
            "denormal, equal": torch.full(shape, smallest, dtype=torch.float64),
            "near overflow": ordinary * largest,
            "largest, equal": torch.full(shape, largest, dtype=torch.float64),
            "largest, either sign": torch.from_numpy(signs) * largest,
            "huge ratio": torch.where(far, ordinary * largest, whole * smallest),
            "huge ratio, few tiny": torch.where(far, whole * smallest, ordinary * largest),
            "numbers of all sizes": ordinary
            * torch.from_numpy(10.0 ** rng.uniform(np.log10(info.tiny), np.log10(largest), size=shape)),
            "offset": ordinary + 1e9 if info.max > 1e9 else ordinary + 1e4,
            "majority of equal rows, largest": torch.where(far, ordinary, torch.ones(shape[1])) * largest,
        }
        matrices |= {f"{kind}, {name}": X.clamp(-largest, largest).to(dtype) for kind, X in kinds.items()}
    return matrices


def lines_with_far_rows(dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, int]]:
    """Named matrices of rows on a line, of which the first ones, a minority, lie far out; and how many these are.

    On a line the median is where rows on either side balance, whatever their distance: no curvature says where.
    """
    rng = np.random.default_rng(12)
    matrices = {}
    for n, n_far in ((3, 1), (34, 3), (34, 11), (300, 100)):
        for d in (1, 2, 2000) if n == 34 else (1, 2):
            direction = np.array([1.0]) if d == 1 else rng.normal(size=d) / np.sqrt(d)
            for size in (1e12, 1e25, 1e30):
                for kind in ("normal", "two values"):
                    near = rng.normal(size=n - n_far) if kind == "normal" else 1e-3 * rng.integers(1, 3, size=n - n_far)
                    X = np.concatenate([np.full(n_far, size), near])[:, None] * direction
                    matrices[f"{kind}, {n_far} of {n} x {d} at {size:g}"] = torch.from_numpy(X).to(dtype), n_far
    return matrices


@pytest.fixture(params=list(ZOO))
def hard_matrix(request):
    return ZOO[request.param]


@pytest.fixture
def points(rng):
    """Twelve points in five dimensions, four of them apart."""
    X = rng.normal(size=(12, 5))
    X[:4] += 3.0
    return X


@pytest.fixture
def several_chunks(monkeypatch):
    """Even small matrices are worked on in several chunks of columns."""
    monkeypatch.setattr(limits, "CHUNK_ELEMENTS", 1 << 8)
    monkeypatch.setattr(limits, "MIN_CHUNK_COLUMNS", 16)


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def _global_randomness_is_left_alone():
    """Nothing may touch the global state of NumPy's or torch's generators."""
    before, torch_before = np.random.get_state(legacy=True), torch.get_rng_state()
    yield
    after = np.random.get_state(legacy=True)
    # The keys change only once they are used up; until then a draw moves the position among them.
    same = np.array_equal(before[1], after[1]) and before[2:] == after[2:]
    assert same, "NumPy's global generator was used"
    assert torch.equal(torch_before, torch.get_rng_state()), "torch's global generator was used"


def end_workers():
    executor = getattr(sys.modules.get("joblib.externals.loky.reusable_executor"), "_executor", None)
    if executor is not None:
        executor.shutdown(wait=True, kill_workers=True)


@pytest.fixture(autouse=True)
def _no_idle_workers():
    """End joblib's workers: one that is idle for minutes may time out just when another test gives it work."""
    yield
    end_workers()


os.environ.setdefault("MPLBACKEND", "Agg")

# What a shell starts in the background ignores interrupts, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Paths to a geometric median.
PATHS = ["in R^d", "in the Gram matrix", "by Weiszfeld steps"]


def on_path(path):
    """Force a path: Weiszfeld steps as long as an end is in sight, in the rows' own dtype, and then in R^d."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(choice, "takes_gram_path", return_value=path == "in the Gram matrix"))
    steps = 30 if path == "by Weiszfeld steps" else -1
    stack.enter_context(mock.patch.object(choice, "weiszfeld_pays", side_effect=lambda n, d, needed: needed <= steps))
    if steps > 0:
        stack.enter_context(mock.patch.object(limits, "FLOAT64_PRODUCT_ELEMENTS", 0))
    return stack


@pytest.fixture(params=PATHS)
def path(request):
    """Small matrices take the one path; the others have to be right on them too."""
    with on_path(request.param):
        yield request.param
