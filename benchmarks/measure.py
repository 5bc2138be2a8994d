"""Timing in turns, an independent proof of accuracy, and peak memory."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

#: Seconds after which idle threads of another library have stopped spinning.
REST = 0.2
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch", "geom-median", "skbgmd")


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a row was measured on and with."""
    return {
        "machine": _cpu() if device == "cpu" else f"{_cpu()}, {torch.cuda.get_device_name(device)}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def in_turns(
    calls: dict[str, Callable[[], Any]], repeats: int, *, warm_up: bool = True, rest: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each call, measured A B C A B C ..., after one round that isn't counted.

    Machines drift: calls that are compared must have been timed next to each other. A call of less than 20 ms is
    repeated within its turn, and the mean taken. Without ``warm_up`` no round goes before and nothing is repeated.

    Idle threads of NumPy's libraries and torch's spin for a while, at the cost of whoever comes next: with ``rest``
    each turn of a call that is shorter begins with so many seconds of calls that aren't counted, and of one that is
    longer with as many of sleep.
    """
    once = {name: seconds(call) if warm_up else rest for name, call in calls.items()}
    numbers = {name: max(1, int(0.02 / once[name])) if warm_up else 1 for name in calls}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            if once[name] >= rest > 0.0:
                time.sleep(rest)
            while once[name] < rest and time.perf_counter() - begin < rest:
                call()
            times[name].append(seconds(call, numbers[name]))
    return times


def seconds(call: Callable[[], Any], number: int = 1) -> float:
    """Mean seconds of a call made so many times."""
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios, round by round."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def proved_gap(X: Any, y: Any) -> float:
    """Relative duality gap (g - L) / L of a point as a geometric median, in float64; it uses nothing of the library.

    Any vectors u_i of norm at most one that add up to zero give a lower bound, the sum of <u_i, x_i - y>. Those of
    (x_i - y) / d_i nearly add up to zero; what is missing can be repaired in many ways, and the best is taken, so that
    no solver is marked down for the proof. One choice is of the rows "at" the point, whose u_i may be anything: those
    at the point itself, those within 1e-7 of the median distance, or the nearest row with its equals, wherever it is.
    The other is of the rows that share what is then left: all of them (the classical bound), or the near ones only.
    """
    point = np.asarray(y, dtype=np.float64)
    d = np.sqrt(sum(np.einsum("ij,ij->i", z, z) for z in _differences(X, point)))
    middle = np.median(d)
    ats = [d == 0.0, d <= 1e-7 * middle, d <= d.min() * (1.0 + 1e-3)]
    sharers = [np.ones(len(d), dtype=bool), d <= 3.0 * middle]
    pulls = [np.where(at, 0.0, 1.0 / np.where(at, 1.0, d)) for at in ats]
    choices = [(at, pull, share) for at, pull in zip(ats, pulls, strict=True) for share in sharers]
    factors = np.stack([factor for _, pull, share in choices for factor in (pull, pull * share, share)])
    sums = np.concatenate([factors @ z for z in _differences(X, point)], axis=1).reshape(len(choices), 3, -1)
    objective = float(d.sum())
    bound = objective - min(_excess(d, at, share, *sum3) for (at, _, share), sum3 in zip(choices, sums, strict=True))
    if bound > 0.0:
        return max(objective - bound, 0.0) / bound
    return float("inf") if objective > 0.0 else 0.0


def _excess(
    d: NDArray[Any], at: NDArray[Any], share: NDArray[Any], pull: NDArray[Any], near: NDArray[Any], total: NDArray[Any]
) -> float:
    """Bound on the excess of the sum of the distances ``d``.

    ``pull`` is the sum of (x_i - y) / d_i over the rows not ``at`` the point, ``near`` that over those of them that
    ``share``, and ``total`` the sum of x_i - y over the rows that share.

    The rows at the point cancel what they can of the pull, r is left, and R is what remains of it among those that
    share, m rows. They become u'_i = (1 - t) u_i - (r - t R) / m, which adds up to zero and is of norm at most one if
    |r - t R| <= t m; t is the smallest such number.
    """
    size, n_at, m = float(np.linalg.norm(pull)), np.count_nonzero(at), np.count_nonzero(share)
    cancelled = min(1.0, n_at / size) if size > 0.0 else 1.0
    r, rest = (1.0 - cancelled) * pull, near - cancelled * pull * (np.count_nonzero(at & share) / max(n_at, 1))
    missing, lead, along = float(r @ r), float(m * m - rest @ rest), float(r @ rest)
    t = 0.0
    if missing > 0.0:
        root = along + np.sqrt(max(along * along + lead * missing, 0.0))
        t = missing / root if lead > 0.0 and root > 0.0 else 1.0
    if t >= 1.0:
        return float("inf")
    # 2 d_i is the most that choosing u_i can cost, for the rows at the point that are beside it after all.
    return t * float(d[share & ~at].sum()) + float((r - t * rest) @ total) / m + 2.0 * float(d[at].sum())


def _differences(X: Any, y: NDArray[Any]) -> Any:
    """``X - y`` in float64, so many columns at a time that they stay small."""
    width = max(1, (1 << 22) // len(X))
    for start in range(0, X.shape[1], width):
        part = slice(start, start + width)
        yield np.asarray(X[:, part], dtype=np.float64) - y[part]


def peak_extra_memory(snippet: str) -> tuple[float, float] | str:
    """Peak memory beyond what was held before, and bytes of the matrix, of a snippet run in a process of its own.

    The snippet defines ``X`` and ``call``. A text says why it can't be measured. The call is first made on a tiny
    matrix, which loads libraries; a larger one would leave memory with the allocator that is then used again unseen.
    """
    if not Path("/proc/self/clear_refs").exists():
        return "skipped: no /proc/self/clear_refs, so a process can't reset its peak memory"
    program = f"""
import re
import torch
def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
{snippet}
call(X[:8, :500].clone())
try:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
except OSError as error:
    print("skipped: the peak memory can't be reset,", error)
    raise SystemExit
before = status("VmRSS")
call(X)
print("extra", status("VmHWM") - before, X.numel() * X.element_size())
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    found = re.search(r"extra (-?\d+) (\d+)", output)
    return (float(found[1]), float(found[2])) if found else output.strip()


def _cpu() -> str:
    try:
        return re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
