"""A client: it trains on its share of the digits. The first few are hostile."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_app.task import accuracy, load_data, make_net, train

app = ClientApp()


def load_share(context: Context):
    client, n_clients = context.node_config["partition-id"], context.node_config["num-partitions"]
    X, _, y, _ = load_data()
    return client, X[client::n_clients], y[client::n_clients]


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    client, X, y = load_share(context)
    sent = message.content["arrays"].to_torch_state_dict()
    net = make_net()
    net.load_state_dict(sent)
    loss = train(net, X, y)
    state = net.state_dict()
    if client < context.run_config["num-hostile"]:
        state = {name: sent[name] - 100.0 * (tensor - sent[name]) for name, tensor in state.items()}
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(y)})
    return Message(content=RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_locally(message: Message, context: Context) -> Message:
    _, X, y = load_share(context)
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    metrics = MetricRecord({"local_accuracy": accuracy(net, X, y), "num-examples": len(y)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
