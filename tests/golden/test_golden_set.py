"""What docs/protocol.md makes normative for devices in other languages, held against the code that runs here."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.targets import distribution_of
from edgefl.wire.messages import Outcome, OutcomeStatus, Section, Task
from edgefl_device_runtime.tasks.clipping import clipped
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.randomness import row_order, step_seeds

HERE = Path(__file__).parent
PROTOCOL = (HERE.parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")


def _golden_set() -> Any:
    spec = importlib.util.spec_from_file_location("golden_set", HERE / "golden_set.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_set"] = module
    spec.loader.exec_module(module)
    return module


golden_set = _golden_set()


@functools.cache
def _written() -> dict[str, Any]:
    """The functions that the document defines, as somebody would who has only the document."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PROTOCOL, re.DOTALL):
        exec(block, names)
    return names


@pytest.fixture
def written() -> dict[str, Any]:
    return _written()


def test_the_vectors_are_those_of_the_code() -> None:
    assert (HERE / "vectors.json").read_text(encoding="utf-8") == golden_set.vectors_text()


def test_the_documents_own_functions_give_the_vectors(written: dict[str, Any]) -> None:
    vectors = json.loads((HERE / "vectors.json").read_text(encoding="utf-8"))
    for each in vectors["orders"]:
        assert written["row_order"](each["rows"], int(each["seed"]), each["epoch"]) == each["order"]
    for each in vectors["step_seeds"]:
        assert written["step_seeds"](len(each["seeds"]), int(each["seed"]), each["epoch"]) == each["seeds"]


@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**32 - 1), rows=st.integers(1, 40))
def test_the_documents_random_numbers_are_those_of_the_code(seed: int, epoch: int, rows: int) -> None:
    names = _written()
    assert names["row_order"](rows, seed, epoch) == row_order(rows, seed, epoch).tolist()
    assert names["step_seeds"](rows, seed, epoch) == step_seeds(rows, seed, epoch).tolist()


def test_the_documents_example_is_true(written: dict[str, Any]) -> None:
    assert written["row_order"](5, 0, 0) == row_order(5, 0, 0).tolist()
    examples = re.findall(r"`(row_order|step_seeds)\(([0-9, ]+)\)` is `(\[[-0-9, ]+\])`", PROTOCOL)
    assert len(examples) >= 2
    for name, arguments, result in examples:
        code = {"row_order": row_order, "step_seeds": step_seeds}[name]
        assert code(*map(int, arguments.split(","))).tolist() == json.loads(result)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 83, 127, 128, 129, 136, 1000, 4096, 100_003])
@pytest.mark.parametrize("bound", [0.125, 0.333, 1e-20])
def test_clipping_is_to_the_last_bit_what_the_document_says(written: dict[str, Any], size: int, bound: float) -> None:
    vector = np.random.default_rng(size).normal(size=size).astype(np.float32)
    bound = float(np.float32(bound))
    squares = np.square(vector, dtype=np.float64).tolist()
    norm = written["pairwise_sum"](squares) ** 0.5
    expected = vector if norm <= bound else vector * np.float32(bound / norm)
    np.testing.assert_array_equal(clipped(vector, bound), expected)


@pytest.mark.parametrize("name", golden_set.CASES)
def test_the_tasks_are_those_of_the_golden_set(name: str) -> None:
    message = (HERE / f"{name}.task.eflm").read_bytes()
    assert Task.decode(message) == golden_set.task(name)
    assert golden_set.task(name).encode() == message


@pytest.mark.filterwarnings("ignore:The last 5 of 21 rows")
def test_the_outcomes_are_those_of_the_golden_set(runtime: str) -> None:
    where = golden_set.architecture()
    for name, outcome in golden_set.outcomes(runtime):
        file = golden_set.outcome_file(name, runtime, where)
        exact = file.exists()
        if not exact:  # an architecture of which nobody recorded outcomes
            (file, *_) = sorted(HERE.glob(f"{name}.outcome.*.{distribution_of(runtime)}.eflm"))
        golden = Outcome.decode(file.read_bytes())
        assert outcome.status == OutcomeStatus.DONE
        if exact:
            assert outcome == golden, name
            continue
        assert (outcome.num_examples, outcome.local_steps) == (golden.num_examples, golden.local_steps)
        for ours, theirs in zip(outcome.sections, golden.sections, strict=True):
            assert (ours.name, ours.codec, ours.length) == (theirs.name, theirs.codec, theirs.length)
            np.testing.assert_allclose(ours.vector(), theirs.vector(), rtol=1e-3, atol=1e-5)


def test_one_step_by_hand_is_the_golden_one(written: dict[str, Any], runtime: str) -> None:
    """One call of each signature in the document's order, with nothing of the code that trains."""
    task = Task.decode((HERE / "one_step.task.eflm").read_bytes())
    model = TrainableModel(HERE / "dropout.tflite", runtime=runtime)
    manifest, call = model.manifest, model._interpreter.signature
    weights = model.weights
    call("reset_optimizer")({})
    views = manifest.layout.views(weights.copy())
    call("set_weights")({each.tensor: views[each.name] for each in manifest.signatures["set_weights"].inputs})
    zeros = {each.tensor: np.zeros(each.shape, np.float32) for each in manifest.signatures["set_correction"].inputs}
    call("set_correction")(zeros)
    rows = written["row_order"](golden_set.ROWS, task.seed, 0)[: manifest.batch_size]
    seed = written["step_seeds"](1, task.seed, 0)
    given = {
        manifest.inputs[0]: golden_set.array("x")[rows],
        manifest.targets[0].name: golden_set.array("y")[rows],
        "sample_weight": np.ones(manifest.batch_size, np.float32),
        "learning_rate": np.full(1, manifest.learning_rate, np.float32),
        "seed": np.array(seed, np.int32),
        "mu": np.zeros(1, np.float32),
    }
    specs = {each.name: each for each in manifest.signatures["train"].inputs}
    inputs = {specs[name].tensor: value.reshape(specs[name].shape) for name, value in given.items()}
    found = call("train")(inputs)
    loss = next(each.tensor for each in manifest.signatures["train"].outputs if each.name == "loss")
    loss_sum = float(found[loss].item()) * manifest.batch_size
    delta = Section.of("delta", model.weights - weights, "float32")
    file = golden_set.outcome_file("one_step", runtime, golden_set.architecture())
    if not file.exists():
        pytest.skip("nobody recorded outcomes of this architecture")
    golden = Outcome.decode(file.read_bytes())
    assert golden.sections == (delta,)
    states = {metric.name: metric.values for metric in golden.metrics}
    assert (states["loss_sum"], states["rows"]) == ((loss_sum,), (8.0,))
