"""A run in Flower's simulation: of six clients one fails, one sends NaN and one goes the other way, a hundred times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

from skbgmd.distributed.flower import RobustFedAvg

client, server = ClientApp(), ServerApp()


@client.train()
def train(asked, context):
    number = context.node_config["partition-id"]
    if number == 0:
        raise RuntimeError("out of memory")
    step = {1: -100.0, 2: np.nan}.get(number, 1.0)
    weight = asked.content["arrays"]["weight"].numpy() + np.float32(step)
    metrics = MetricRecord({"num-examples": 10, "loss": 1.0})
    return Message(RecordDict({"arrays": ArrayRecord({"weight": Array(weight)}), "m": metrics}), reply_to=asked)


@client.evaluate()
def evaluate(asked, context):
    return Message(RecordDict({"m": MetricRecord({"num-examples": 10, "score": 0.5})}), reply_to=asked)


@server.main()
def main(grid, context):
    start = ArrayRecord({"weight": Array(np.zeros((2, 3), dtype=np.float32))})
    # Flower counts the nodes that are there before it waits for all: two may be all that it samples.
    strategy = RobustFedAvg(min_train_nodes=6, min_evaluate_nodes=6, min_available_nodes=6)
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=2)
    found = {
        "weight": result.arrays["weight"].numpy().ravel().tolist(),
        "train": dict(result.train_metrics_clientapp[2]),
        "evaluate": dict(result.evaluate_metrics_clientapp[2]),
    }
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    run_simulation(server, client, num_supernodes=6, backend_config={"client_resources": {"num_cpus": 1}})
