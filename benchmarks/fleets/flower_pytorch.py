"""What a Flower client does with PyTorch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fleets.job import BATCH, LEARNING_RATE, job_from_environment
from local_steps.torch_models import build, load_weights

app = ClientApp()


@functools.cache
def model() -> Any:
    job = job_from_environment()
    net = build(job.model)
    load_weights(job.model, net, Path(job.folder))
    return net


def tensors(x: Any, y: Any) -> tuple[Any, Any]:
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    return x, torch.from_numpy(np.ascontiguousarray(y)).long()


@functools.cache
def loader(device: int) -> Any:
    data = torch.utils.data.TensorDataset(*tensors(*job_from_environment().device_rows(device)))
    return torch.utils.data.DataLoader(data, BATCH, shuffle=True)


def first_arrays() -> ArrayRecord:
    return ArrayRecord(model().state_dict())


def accuracy(arrays: ArrayRecord) -> float:
    net = model()
    net.load_state_dict(arrays.to_torch_state_dict())
    x, y = tensors(*job_from_environment().tests())
    with torch.no_grad():
        return float((net(x).argmax(1) == y).float().mean())


@app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    net, batches = model(), loader(int(context.node_config["partition-id"]))
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE)
    for x, y in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": len(batches.dataset)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)
