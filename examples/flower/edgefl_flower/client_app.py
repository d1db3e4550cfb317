"""A device: it trains with edgefl, on numpy and a TFLite interpreter. The model file comes with every message."""

from __future__ import annotations

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import edgefl
from edgefl_flower.task import arrays_of, load, rows_of_device, seed_of, set_arrays

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains on this device's examples, from the weights that were received."""
    config = message.content["config"]
    model = load(config["model"])
    set_arrays(model, message.content["arrays"])
    x, y = rows_of_device(context.node_config, context.run_config, _shape(model))
    device = str(context.node_config.get("partition-id", context.node_id))
    history = model.fit(
        x,
        y,
        epochs=config["epochs"],
        learning_rate=config["learning-rate"],
        seed=seed_of(config["seed"], config["server-round"], device),
    )
    metrics = MetricRecord({"loss": history.history["loss"][-1], "num-examples": history.num_examples})
    return Message(RecordDict({"arrays": arrays_of(model), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Tests the received weights on this device's examples."""
    model = load(message.content["config"]["model"])
    set_arrays(model, message.content["arrays"])
    x, y = rows_of_device(context.node_config, context.run_config, _shape(model))
    metrics = MetricRecord({**model.evaluate(x, y), "num-examples": len(x)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _shape(model: edgefl.TrainableModel) -> tuple[int, ...]:
    specs = {each.name: each for each in model.manifest.signatures["train"].inputs}
    return tuple(specs[model.manifest.inputs[0]].shape[1:])
