"""Timing in turns, an independent proof of accuracy, and peak memory."""

from __future__ import annotations

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


def environment() -> dict[str, Any]:
    """What a row was measured on and with."""
    packages = ("numpy", "scipy", "scikit-learn", "torch", "geom-median", "skbgmd")
    return {
        "machine": _cpu(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def in_turns(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, measured A B C A B C ..., after one round that isn't counted.

    These machines drift: calls that are compared must have been timed next to each other. A call of less than 20 ms is
    repeated within its turn, and the mean taken.
    """
    numbers = {name: max(1, int(0.02 / _seconds(call, 1))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(_seconds(call, numbers[name]))
    return times


def _seconds(call: Callable[[], Any], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios, round by round."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def proved_gap(X: Any, y: Any) -> float:
    """Relative duality gap of a point as a geometric median, in float64; independent of the library.

    To be fair to solvers that stop just beside an optimal row, rows within 1e-7 of a typical distance count as lying
    at the point, at the price of twice their distance.
    """
    y = np.asarray(y, dtype=np.float64)
    d2, n = np.zeros(len(X)), len(X)
    for part in _chunks(X):
        z = np.asarray(X[:, part], dtype=np.float64) - y[part]
        d2 += np.einsum("ij,ij->i", z, z)
    d = np.sqrt(d2)
    at = d <= 1e-7 * np.median(d)
    pull = np.where(at, 0.0, 1.0 / np.where(at, 1.0, d))
    sums = np.concatenate(
        [np.stack([pull, np.ones(n)]) @ (np.asarray(X[:, part], dtype=np.float64) - y[part]) for part in _chunks(X)],
        axis=1,
    )
    size = np.linalg.norm(sums[0])
    share = max(0.0, 1.0 - at.sum() / size) if size > 0 else 0.0
    r = share * size
    objective = d.sum()
    excess = (r / n * objective + share * float(sums[0] @ sums[1]) / n) / (1.0 + r / n) + 2.0 * d[at].sum()
    return float(excess / (objective - excess)) if objective > excess else float("inf")


def peak_extra_memory(snippet: str) -> tuple[float, float] | None:
    """Peak memory beyond what was held before, and bytes of the matrix, of a snippet run in a process of its own.

    The snippet defines ``X`` and ``call``. None where the system doesn't tell a process its peak.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    program = f"""
import re
import torch
def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
{snippet}
call(X[:, :5000].clone())
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
call(X)
print("extra", status("VmHWM") - before, X.numel() * X.element_size())
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    found = re.search(r"extra (\d+) (\d+)", output)
    assert found is not None, output
    return float(found[1]), float(found[2])


def _chunks(X: Any) -> list[slice]:
    width = max(1, (1 << 22) // len(X))
    return [slice(start, start + width) for start in range(0, X.shape[1], width)]


def _cpu() -> str:
    try:
        names = re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        return f"{names[0]}, {len(names)} cores"
    except (OSError, IndexError):
        return platform.processor()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
