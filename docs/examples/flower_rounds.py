"""Rounds of Flower's FedAvg and of RobustFedAvg with clients of which some lie, in one process.

Flower's simulation is left out: clients train here, and their replies go to the strategy as the grid hands them over.
``python docs/examples/flower_rounds.py`` prints a line of JSON: the version of Flower, and for each strategy the test
accuracies after each round and the weights of the clients in the last one.
"""

import json
import logging

import flwr
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits

from skbgmd.distributed.flower import RobustFedAvg

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)
N_CLIENTS, N_LIARS, N_ROUNDS = 10, 3, 15


def make_net():
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def local_training(sent, client, generator):
    """Train for an epoch on a client's share; the first few lie."""
    net = make_net()
    net.load_state_dict(sent)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    X_own, y_own = X[client:1200:N_CLIENTS], y[client:1200:N_CLIENTS]
    for batch in torch.randperm(len(y_own), generator=generator).split(10):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(X_own[batch]), y_own[batch]).backward()
        optimizer.step()
    state = net.state_dict()
    if client < N_LIARS:
        for name, tensor in state.items():
            state[name] = sent[name] - 10.0 * (tensor - sent[name])
    return state, len(y_own)


def accuracy(state):
    net = make_net()
    net.load_state_dict(state)
    with torch.no_grad():
        return float((net(X[1200:]).argmax(dim=1) == y[1200:]).float().mean())


def rounds(strategy):
    class Nodes:
        def get_node_ids(self):
            return list(range(N_CLIENTS))

    def reply(client, state, n_examples):
        names = dict.fromkeys(("message_id", "reply_to_message_id", "group_id"), "")
        about = Metadata(
            run_id=1,
            src_node_id=client,
            dst_node_id=0,
            created_at=0.0,
            ttl=60.0,
            message_type="train",
            **names,
        )
        metrics = MetricRecord({"num-examples": n_examples})
        return Message(
            metadata=about,
            content=RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}),
        )

    torch.manual_seed(0)
    state = make_net().state_dict()
    generator, accuracies, metrics = torch.Generator().manual_seed(0), [], {}
    for number in range(1, N_ROUNDS + 1):
        strategy.configure_train(number, ArrayRecord(state), ConfigRecord(), Nodes())
        replies = [reply(client, *local_training(state, client, generator)) for client in range(N_CLIENTS)]
        arrays, metrics = strategy.aggregate_train(number, replies)
        state = arrays.to_torch_state_dict()
        accuracies.append(accuracy(state))
    return accuracies, [metrics.get(f"client-weight/{client}", 1 / N_CLIENTS) for client in range(N_CLIENTS)]


def main():
    logging.getLogger("flwr").setLevel(logging.ERROR)
    found = {"flwr": flwr.__version__}
    # With fraction_train=0 no messages are sent: there is nobody to receive them.
    for strategy in (FedAvg(fraction_train=0.0), RobustFedAvg(fraction_train=0.0)):
        found[type(strategy).__name__] = rounds(strategy)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
