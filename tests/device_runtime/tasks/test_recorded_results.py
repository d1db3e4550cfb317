"""What every kind of task comes to, to the last bit, as it was recorded when the agent did all of it itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgefl.hashing import sha256
from edgefl.wire.messages import Correction, ExtraVector, OutcomeStatus, TaskKind
from edgefl_device_runtime.tasks import RunMemory
from quadratic_trainer import LOCAL, STATISTIC

SCAFFOLD = {"correction": Correction.SCAFFOLD, "extra_vectors": (ExtraVector("control", "c" * 64),)}
FEDDYN = {"correction": Correction.FEDDYN, "mu": 0.5}
DEMANDS = {
    "fedavg": {},
    "float16": {"codec": "float16"},
    "clipped": {"clip_norm": 0.5},
    "clipped float16": {"clip_norm": 0.5, "codec": "float16"},
    "fedprox": {"mu": 0.5},
    "scaffold": SCAFFOLD,
    "scaffold float16": {**SCAFFOLD, "codec": "float16"},
    "feddyn": FEDDYN,
    "feddyn float16": {**FEDDYN, "codec": "float16"},
    "fedsgd": {"kind": TaskKind.GRADIENT},
    "fedsgd clipped float16": {"kind": TaskKind.GRADIENT, "clip_norm": 0.5, "codec": "float16"},
    "evaluate": {"kind": TaskKind.EVALUATE},
}
RECORDED = {
    "fedavg": "32ce51fa4da2ac91 249c953ff5dd0d49 d3bd907862b022c8",
    "fedavg, local parameters": "983c2e75f27d5394 8dd7b2e9a4675ac4 7288064896399893",
    "float16": "f47f814b3d898ce6 adc76e9fafdbd69a f9c1b42fbc4f174b",
    "clipped": "774e4ccafd115365 35917a96b9c3b292 713d3b591f09337f",
    "clipped float16": "d622be349d3407c8 640557c6a7f8b6bf 2fdc6439c93166b4",
    "fedprox": "8713443349baab8a 687b8fa040bea9b3 50473a89c583f5aa",
    "scaffold": "2a5652d7af5e820d 9792c91c91b34ec9 356cd1271cdd7941",
    "scaffold float16": "b8e6286b625f67a8 4a8aa314f51f79c9 5f2fee9938df43d3",
    "scaffold float16, local parameters": "34a1d9bcf1bacc2d 5c4100cc6f24d5fa 5966485c6d36be46",
    "feddyn": "167a174cce4906a4 1ba99229ec24c65b b4e25de1e8ec2161",
    "feddyn, local parameters": "6ace161cc639c439 bd206e5ebb7d6a7b 031a394b7cc36355",
    "feddyn float16": "82604ee3b1be3ba1 7f0a2ef1d4acbf32 a82abb33b14036a3",
    "fedsgd": "c6c9e76242d746bf e81e546391692207 2150af7dce5b51fc",
    "fedsgd clipped float16": "1e42ebb4484f7003 200e32b018c7a94d 0da6038593050731",
    "evaluate": "b7f4416f9e55b983 257f1d70a4fc82c1 89a85eb4573cbfe9",
}
"""Of three rounds each."""
ROWS = (np.arange(16, dtype=np.float32).reshape(4, 4) * np.float32(0.37) - 2).astype(np.float32)


def fingerprint(outcome, memory):
    told = [
        [[each.name, each.codec, each.length, each.digest] for each in outcome.sections],
        [[each.name, list(each.values)] for each in outcome.metrics],
        [outcome.num_examples, outcome.local_steps],
        [[name, array.tobytes().hex()] for name, array in sorted(memory.local.items())],
        None if memory.control is None else memory.control.tobytes().hex(),
    ]
    return sha256(json.dumps(told).encode())[:16]


@pytest.mark.parametrize("name", RECORDED)
def test_the_bits_are_those_that_were_recorded(make_device, name):
    demand, comma, _ = name.partition(",")
    device = make_device(STATISTIC, *([LOCAL] if comma else []))
    layout = device.manifest.layout
    device.weights = np.linspace(-1, 1, layout.size).astype(np.float32)
    control = np.linspace(0.1, 0.4, layout.weight_size).astype(np.float32)
    found = []
    for number in (1, 2, 3):
        asked = {"seed": number, "continues": f"t{number - 1}" if number > 1 else "", **DEMANDS[demand]}
        task = device.task(f"t{number}", **asked)
        data = {"x": ROWS, "y": np.zeros(4, np.float32)}
        result = device.perform(task, control if task.extra_vectors else None, data=data)
        assert result.outcome.status == OutcomeStatus.DONE
        found.append(fingerprint(result.outcome, result.remembered.get(task.task_id, RunMemory())))
        device.weights, control = device.weights + np.float32(0.3), control * np.float32(0.7)
    assert " ".join(found) == RECORDED[name]
