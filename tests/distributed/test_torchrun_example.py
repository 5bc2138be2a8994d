"""The example of the page on estimators across ranks, as torchrun runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skbgmd

EXAMPLE = Path(skbgmd.__file__).parents[1] / "docs" / "examples" / "torchrun_estimator.py"


@pytest.mark.slow
def test_the_example_runs():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", str(EXAMPLE)]
    path = os.pathsep.join(filter(None, [str(EXAMPLE.parents[2]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"accuracy (\S+)", done.stdout)[1])
    weights = [float(weight) for weight in re.search(r"weights by rank (.*)", done.stdout)[1].split()]
    suspects = [int(index) for index in re.search(r"suspects of rank 0 \[(.*)\]", done.stdout)[1].split(",")]
    assert accuracy > 0.9
    assert max(weights[:3]) < 0.5
    assert weights[3] < 0.1
    # The first twenty are the wrong ones.
    assert sum(index < 20 for index in suspects) >= 13
