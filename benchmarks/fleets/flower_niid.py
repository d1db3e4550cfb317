"""Flower's simulation of its niid_bench: a program of its own, run by ``benchmarks/niid_bench.py`` with a job.

Clients train with PyTorch and momentum that begins anew each round, as in the baseline.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

JOB = json.loads(os.environ["EDGEFL_NIID_JOB"])
app, server = ClientApp(), ServerApp()


class _Flat(nn.Module):
    """Flattens with channels last, as the first weights have it."""

    def forward(self, x: Any) -> Any:
        return x.permute(0, 2, 3, 1).flatten(1)


@functools.cache
def model() -> Any:
    """The network with the weights that all begin with."""
    torch.set_num_threads(1)
    stack: list[Any] = []
    for inputs, filters in ((1, 6), (6, 16)):
        stack += [nn.Conv2d(inputs, filters, 5), nn.ReLU(), nn.MaxPool2d(2)]
    stack += [_Flat(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    net = nn.Sequential(*stack)
    with np.load(Path(JOB["folder"]) / "weights.npz") as stored:
        for parameter, key in zip(net.parameters(), stored.files, strict=True):
            array = stored[key]
            turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(turned)))
    return net


def tensors(x: Any, y: Any) -> tuple[Any, Any]:
    """Images with channels first, and classes."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))), torch.from_numpy(y).long()


@functools.cache
def loader(device: int) -> Any:
    """The rows of a device, in another order each epoch."""
    folder = Path(JOB["data"])
    owners = np.load(folder / "id.npy")
    own = np.flatnonzero(owners == np.unique(owners)[device])
    x, y = (np.load(folder / f"{name}.npy", mmap_mode="r")[own] for name in "xy")
    order = torch.Generator().manual_seed(100 * JOB["seed"] + device)
    rows = torch.utils.data.TensorDataset(*tensors(x, y))
    return torch.utils.data.DataLoader(rows, JOB["batch"], shuffle=True, generator=order)


@functools.cache
def tests() -> tuple[Any, Any]:
    """The images that no device has."""
    return tensors(*(np.load(Path(JOB["data"]) / f"test_{name}.npy") for name in "xy"))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains the weights of a round for E epochs."""
    net, batches = model(), loader(int(context.node_config["partition-id"]))
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(net.parameters(), JOB["rate"], momentum=JOB["momentum"], weight_decay=JOB["decay"])
    for _ in range(JOB["epochs"]):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    metrics = MetricRecord({"num-examples": len(batches.dataset)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@server.main()
def main(grid: Any, context: Context) -> None:
    """Averages, and says how good the weights are after each round."""

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        net, (x, y) = model(), tests()
        net.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            if number:
                print("accuracy", float((net(x).argmax(1) == y).float().mean()), flush=True)
        return None

    every = {"min_train_nodes": JOB["devices"], "min_available_nodes": JOB["devices"]}
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, **every)
    # Errors of clients are data for Flower: a run in which all fail ends like any other.
    result = strategy.start(grid, ArrayRecord(model().state_dict()), num_rounds=JOB["rounds"], evaluate_fn=evaluate)
    assert len(result.train_metrics_clientapp) == JOB["rounds"]


if __name__ == "__main__":
    from flwr.simulation import run_simulation

    # By its name: what belongs to a program travels by value, and would lose model and rows with each call.
    from fleets import flower_niid as own

    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    run_simulation(
        own.server,
        own.app,
        num_supernodes=JOB["devices"],
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            # Its own Ray, also where there is another one on this machine.
            "init_args": {"address": "local", "num_cpus": JOB["workers"], "log_to_driver": False},
        },
    )
