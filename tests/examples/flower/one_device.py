"""Trains once as a Flower client of the example and once as a device of edgefl, and prints both deltas' hashes.

Runs in Flower's environment: `one_device.py MODEL DATA`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict

from edgefl.hashing import sha256, weights_hash
from edgefl.wire.messages import Task
from edgefl_device_runtime.tasks import ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_flower.client_app import app
from edgefl_flower.task import arrays_of, load, seed_of

EPOCHS, RATE, SEED, ROUND, NODE = 3, 0.05, 7, 2, 5

model = Path(sys.argv[1]).read_bytes()
received = load(model).weights
settings = {"model": model, "epochs": EPOCHS, "learning-rate": RATE, "seed": SEED, "server-round": ROUND}
content = RecordDict({"arrays": arrays_of(load(model)), "config": ConfigRecord(settings)})
node = {"data": sys.argv[2]}
context = Context(run_id=1, node_id=NODE, node_config=node, state=RecordDict(), run_config={})
about = {"run_id": 1, "message_id": "m", "src_node_id": 1, "dst_node_id": NODE, "reply_to_message_id": ""}
metadata = Metadata(**about, group_id="", created_at=time.time(), ttl=3600.0, message_type="train")
reply = app(Message(content, metadata=metadata), context)
arrays = reply.content["arrays"]
names = [each.name for each in load(model).manifest.parameters]
trained = np.concatenate([arrays[name].numpy().ravel() for name in names])

plain = TrainableModel(model)
task = Task(
    population="flowers",
    run="run",
    task_id="task",
    model_hash=sha256(model),
    graph_hash=plain.manifest.graph_hash,
    layout_hash=plain.manifest.layout_hash,
    base_weights_hash=weights_hash(received),
    epochs=EPOCHS,
    learning_rate=RATE,
    seed=seed_of(SEED, ROUND, str(NODE)),
)
with np.load(sys.argv[2]) as data:
    done = perform(task, ModelTrainer(plain), Received(received), dict(data))
assert done.error is None, done.error
(delta,) = [each.vector() for each in done.outcome.sections if each.name == "delta"]
for each in (trained - received, delta):
    print(hashlib.sha256(each.tobytes()).hexdigest())
assert reply.content["metrics"]["num-examples"] == done.outcome.num_examples
assert "tensorflow" not in sys.modules
