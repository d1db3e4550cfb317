"""What is measured is real, repeats itself, and fits what the shapes in the file say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import edgefl_device_runtime.measuring as measuring
from edgefl.inspecting.graph import Graph, read_graph
from edgefl.model_file import ModelFile
from edgefl_device_runtime.measuring import Measured, child, measure
from edgefl_device_runtime.training.interpreter import runtime_module
from interpreters import EXPECTED, each_interpreter

ITEM_BYTES = {"float32": 4, "int32": 4, "int64": 8, "uint32": 4, "bool": 1}


@pytest.fixture(scope="module")
def file(wide_file: Path) -> ModelFile:
    return ModelFile.read(wide_file)


@pytest.fixture(scope="module")
def measured(file: ModelFile) -> dict[str, Measured]:
    return {each.runtime: each for each in measure(file.name, file.manifest)}


def test_every_installed_runtime_is_measured_with_every_signature(
    measured: dict[str, Measured], file: ModelFile
) -> None:
    assert tuple(measured) == EXPECTED
    for each in measured.values():
        assert each.reason == ""
        assert each.arenas is not None
        assert each.arenas.keys() == file.manifest.signatures.keys()
        assert each.variables == 4 * file.manifest.layout.size + 8  # and the counter of steps


def test_the_figures_repeat_themselves(measured: dict[str, Measured], file: ModelFile) -> None:
    for again in measure(file.name, file.manifest):
        first = measured[again.runtime]
        assert again.delegation == first.delegation
        assert again.arenas is not None
        assert first.arenas is not None
        assert again.arenas == pytest.approx(first.arenas, rel=0.02, abs=2048)


def test_what_a_signature_needs_is_not_allocated_before_it_is_called(measured: dict[str, Measured]) -> None:
    for each in measured.values():
        assert each.arenas is not None
        # Arenas are what a call of that signature adds to an interpreter that is loaded and has allocated its tensors.
        assert min(each.arenas["evaluate"], each.arenas["infer"]) > 4096
        assert each.arenas["reset_optimizer"] < 4096


def sizes_of_tensors(graph: Graph, signature: str) -> dict[int, int]:
    """Bytes of each tensor that an interpreter has to make room for."""
    return {
        index: tensor.size * ITEM_BYTES.get(tensor.dtype, 0)
        for index, tensor in enumerate(graph.tensors[graph.signatures[signature]])
        if not graph.buffer_sizes[tensor.buffer]
    }


def peak_of_lifetimes(graph: Graph, signature: str) -> int:
    """The most bytes alive at once, each tensor from the op that makes it to the last that reads it."""
    operators, sizes = graph.operators[graph.signatures[signature]], sizes_of_tensors(graph, signature)
    born: dict[int, int] = {}
    dies: dict[int, int] = {}
    for step, each in enumerate(operators):
        for index in each.inputs:
            born.setdefault(index, 0)  # what no op makes is an input of the signature
            dies[index] = step
        for index in each.outputs:
            born.setdefault(index, step)
    return max(
        sum(sizes.get(index, 0) for index, first in born.items() if first <= step <= dies.get(index, len(operators)))
        for step in range(len(operators))
    )


WITHOUT_DELEGATES = """
import functools, importlib, json, sys
import numpy as np
from edgefl.model_file import ModelFile
from edgefl_device_runtime.measuring import child
module, path = importlib.import_module(sys.argv[1]), sys.argv[2]
plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
interpreter = functools.partial(module.Interpreter, experimental_op_resolver_type=plain)
found = {}
for name, signature in ModelFile.read(path).manifest.signatures.items():
    inputs = {spec.tensor: np.zeros(spec.shape, spec.dtype) for spec in signature.inputs}
    child._heap(interpreter, path, name, inputs)
    found[name] = child._heap(interpreter, path, name, inputs)
print(json.dumps(found))
"""


@pytest.mark.parametrize("runtime", each_interpreter())
def test_without_a_delegate_a_signature_holds_what_the_lifetimes_of_its_tensors_add_up_to(
    measured: dict[str, Measured], file: ModelFile, runtime: str
) -> None:
    command = [sys.executable, "-c", WITHOUT_DELEGATES, runtime_module(runtime), file.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heap, graph, variables = json.loads(done.stdout), read_graph(file), measured[runtime].variables or 0
    for name in ("get_weights", "set_weights", "get_state", "set_state"):
        assert heap[name]["called"] - variables == pytest.approx(peak_of_lifetimes(graph, name), rel=0.02)
    # Where there is arithmetic, kernels have scratch of their own, and reshapes share the room of their inputs.
    train = heap["train"]["allocated"] + heap["train"]["called"] - variables
    assert train == pytest.approx(peak_of_lifetimes(graph, "train"), rel=0.3)


@pytest.mark.parametrize("runtime", each_interpreter())
def test_the_arena_of_train_holds_at_least_its_largest_op(
    measured: dict[str, Measured], file: ModelFile, runtime: str
) -> None:
    graph = read_graph(file)
    sizes = sizes_of_tensors(graph, "train")
    largest = max(sum(sizes.get(index, 0) for index in each.outputs) for each in graph.operators[0])
    arenas = measured[runtime].arenas
    assert arenas is not None
    assert 4 * 256 * 512 <= largest <= arenas["train"]  # the gradient of the first kernel


def test_reading_the_weights_costs_litert_one_copy_of_them(measured: dict[str, Measured], file: ModelFile) -> None:
    arenas = measured["ai-edge-litert"].arenas
    assert arenas is not None
    assert arenas["get_weights"] == pytest.approx(4 * file.manifest.layout.size, rel=0.02)
    assert arenas["reset_optimizer"] < 0.02 * arenas["get_weights"]


@pytest.mark.parametrize("runtime", each_interpreter())
def test_xnnpack_takes_part_of_train(measured: dict[str, Measured], file: ModelFile, runtime: str) -> None:
    delegation = measured[runtime].delegation
    assert delegation is not None
    assert delegation.ops == len(read_graph(file).operators[0])
    assert 0 < delegation.partitions < delegation.taken < delegation.ops


def test_a_runtime_that_the_file_was_not_made_for_is_not_tried(file: ModelFile) -> None:
    results = measure(file.name, replace(file.manifest, target="litert-2"))
    reasons = ["", "the file was made for litert-2 (ai-edge-litert 2.3 or newer)"]
    assert [each.reason for each in results] == reasons[: len(EXPECTED)]


def test_a_runtime_that_refuses_the_file_or_does_not_work_says_why(
    tmp_path: Path, file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(b"no model at all")
    assert all("ValueError" in each.reason for each in measure(other, file.manifest))
    monkeypatch.setattr(measuring, "runtime_module", lambda runtime: "not_a_runtime")
    assert {each.reason for each in measure(file.name, file.manifest)} == {
        "ModuleNotFoundError: No module named 'not_a_runtime'"
    }


class Delegated:
    """A chain 0 → 1 → 2 → 3 → 4 whose two middle ops, and a constant beside them, a delegate has taken."""

    OPS: ClassVar = [
        *(("EXP", [0], [1]), ("EXP", [1], [2]), ("ADD", [2, 9], [3]), ("EXP", [3], [4])),
        ("DELEGATE", [1, 9], [3]),
    ]

    def __init__(self, **_: Any) -> None:
        pass

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0}]

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return [
            {"index": index, "op_name": name, "inputs": given, "outputs": made}
            for index, (name, given, made) in enumerate(self.OPS)
        ]


class DelegatedUpdates(Delegated):
    """A delegate has taken the update of one variable (8) by what leads from 1; those of 7 and 6 it has not."""

    OPS: ClassVar = [
        *(("VAR_HANDLE", [], [8]), ("VAR_HANDLE", [], [7]), ("VAR_HANDLE", [], [6])),
        *(("EXP", [0], [1]), ("EXP", [1], [2]), ("ASSIGN_VARIABLE", [8, 2], [])),
        *(("EXP", [1], [3]), ("ASSIGN_VARIABLE", [7, 3], [])),
        *(("EXP", [0], [4]), ("ASSIGN_VARIABLE", [6, 4], [])),
        ("DELEGATE", [1, 8], [3]),
    ]


def test_updates_of_variables_count_where_all_that_leads_to_them_is_in_the_partition() -> None:
    assert child._delegation(DelegatedUpdates, "m") == {"ops": 10, "taken": 3, "partitions": 1}


def test_the_ops_that_a_partition_replaced_are_those_between_its_inputs_and_outputs() -> None:
    assert child._delegation(Delegated, "m") == {"ops": 4, "taken": 2, "partitions": 1}


def test_a_runtime_that_does_not_tell_its_ops_has_no_delegation() -> None:
    class Silent:
        def __init__(self, **_: Any) -> None:
            pass

        def allocate_tensors(self) -> None:
            pass

    assert child._delegation(Silent, "m") is None
