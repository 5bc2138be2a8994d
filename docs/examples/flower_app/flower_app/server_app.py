"""The server: RobustFedAvg in place of FedAvg, and nothing else."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_app.task import accuracy, load_data, make_net
from skbgmd.distributed.flower import RobustFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    _, X_test, _, y_test = load_data()
    torch.manual_seed(0)
    net = make_net()

    def evaluate(server_round, arrays):
        net.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(net, X_test, y_test)})

    strategy = FedAvg() if context.run_config["strategy"] == "FedAvg" else RobustFedAvg()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(net.state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=evaluate,
    )
    last = result.train_metrics_clientapp[context.run_config["num-server-rounds"]]
    weights = {name: round(weight, 3) for name, weight in last.items() if name.startswith("client-weight/")}
    print("Weights of the clients in the last round:", weights)
    print(
        "Accuracy after the last round:", result.evaluate_metrics_serverapp[len(result.evaluate_metrics_serverapp) - 1]
    )
