"""Training that goes on from its last checkpoint when a rank is killed.

python -m torch.distributed.run --nproc-per-node 2 --max-restarts 1 restart.py FOLDER --kill-at 3
"""

import argparse
import hashlib
import os
import signal
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.distributed import (
    Checkpoints,
    Exchange,
    ShardedRows,
    init_from_env,
    random_states,
    set_random_states,
)

arguments = argparse.ArgumentParser()
arguments.add_argument("folder")
arguments.add_argument("--steps", type=int, default=6)
arguments.add_argument("--kill-at", type=int, help="a step in which rank 1 kills itself, the first time")
options = arguments.parse_args()

init_from_env("gloo", timeout=timedelta(seconds=20))
exchange = Exchange()
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(32, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
torch.manual_seed(1 + exchange.rank)  # each rank has its own data and its own dropout
rule, rule_state = BlockGeometricMedian(0.5, complement="memory"), None

checkpoints, first = Checkpoints(options.folder, exchange), 0
if found := checkpoints.load():
    first, state = found
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    rule_state = state["rule"]
    set_random_states(state["random"])
print(f"rank {exchange.rank} begins with step {first + 1}", flush=True)

for step in range(first + 1, options.steps + 1):
    X = torch.randn(64, 20)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(X), (X[:, 0] > X[:, 1]).long()).backward()
    gradient = parameters_to_vector([parameter.grad for parameter in net.parameters()])
    shards = exchange.to_shards(gradient[None]).wait()
    if step == options.kill_at and exchange.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    aggregate, rule_state = rule(ShardedRows(shards, len(gradient), exchange), rule_state)
    joined = exchange.from_shards(aggregate.vector, len(gradient)).wait()
    vector_to_parameters(joined, [parameter.grad for parameter in net.parameters()])
    optimizer.step()
    checkpoints.save(
        step,
        {
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rule": rule_state,
            "random": random_states(),
        },
    )

parameters = parameters_to_vector(net.parameters()).detach()
print(f"rank {exchange.rank} ends with {hashlib.sha256(parameters.numpy().tobytes()).hexdigest()[:16]}", flush=True)
dist.destroy_process_group()
