"""A model file's graphs and the roles of its bytes, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import ModelFileError
from edgefl.inspecting.graph import Graph, Operator, Tensor, read_graph
from edgefl.inspecting.sizes import sizes_by_role
from edgefl.model_file import ModelFile
from model_files import make_model_file


def read(path: Path) -> tuple[ModelFile, Graph]:
    file = ModelFile.read(path)
    return file, read_graph(file)


def test_every_signature_is_there_with_its_ops(mlp_file: Path) -> None:
    file, graph = read(mlp_file)
    assert graph.signatures.keys() == file.manifest.signatures.keys()
    assert graph.signatures["train"] == 0
    train = graph.count("train")
    assert train["READ_VARIABLE"] == train["VAR_HANDLE"] > 4
    assert train["CALL_ONCE"] == 1
    assert list(train.values()) == sorted(train.values(), reverse=True)
    assert graph.count("get_weights") == {"VAR_HANDLE": 4, "READ_VARIABLE": 4, "CALL_ONCE": 1}


def test_tensors_have_the_shapes_and_types_that_the_manifest_promises(cnn_file: Path) -> None:
    file, graph = read(cnn_file)
    tensors = {(tensor.shape, tensor.dtype) for tensor in graph.tensors[graph.signatures["train"]]}
    assert {(spec.shape, spec.dtype) for spec in file.manifest.signatures["train"].inputs} <= tensors


def test_a_max_pooling_knows_its_window_and_a_product_which_side_it_transposes(cnn_file: Path) -> None:
    _, graph = read(cnn_file)
    (pooling,) = (each for _, each in graph.reached(0) if each.name == "MAX_POOL_2D")
    assert pooling.window == 4
    assert {each.left_transposed for _, each in graph.reached(0) if each.name == "BATCH_MATMUL"} <= {True, False}


def test_branches_and_loops_are_reached_once() -> None:
    add = [Operator("ADD", 1, (0, 0), (1,))]
    calls = [Operator("IF", 1, (), (), calls=(1, 1)), Operator("WHILE", 1, (), (), calls=(1, 2))]
    graph = Graph([[Tensor((), "float32", 0)] * 2] * 3, [calls, add, add], {"train": 0}, [0])
    assert graph.count("train") == {"ADD": 2, "IF": 1, "WHILE": 1}


@pytest.mark.parametrize("name", ["mlp", "mlp_adam", "cnn", "frozen", "batch_norm"])
def test_the_bytes_by_role_add_up_to_the_file(name: str, request: pytest.FixtureRequest) -> None:
    file, graph = read(request.getfixturevalue(f"{name}_file"))
    sizes = sizes_by_role(file, graph)
    assert sum(sizes.values()) == len(file.data)
    roles = {"weights": file.manifest.layout.weight_size, "statistics": file.manifest.layout.statistic_size}
    assert {role: sizes.get(role, 0) for role in roles} == {role: 4 * size for role, size in roles.items()}
    assert sizes["manifest"] == len(file.manifest.to_json())


def test_frozen_weights_are_constants_and_gathers_have_index_tables(frozen_file: Path, cnn_file: Path) -> None:
    frozen, cnn = (sizes_by_role(*read(path)) for path in (frozen_file, cnn_file))
    assert 4 * (20 * 16) <= frozen["constants float32"] < 4 * (20 * 16 + 40)
    assert cnn["index tables"] > frozen["index tables"]


def test_slots_of_the_optimizer_that_are_not_one_number_have_a_role_of_their_own() -> None:
    file = ModelFile(make_model_file())
    buffers = [*read_graph(file).buffer_sizes, 400, 4]
    slot, small = len(buffers) - 2, len(buffers) - 1
    tensors = [Tensor((2,), "float32", 1), Tensor((100,), "float32", slot), Tensor((4,), "int8", small)]
    ops = [Operator("ASSIGN_VARIABLE", 1, (0, 1), ())]
    once = [Operator("CALL_ONCE", 1, (), (), initialiser=1)]
    sizes = sizes_by_role(file, Graph([tensors, tensors], [once, ops], {"train": 0}, buffers))
    assert sizes["optimizer"] == 400
    assert sizes["constants int8"] == 4
    assert sizes["weights"] == 4 * file.manifest.layout.weight_size


def test_a_graph_that_cannot_be_parsed_is_one_clear_error(mlp_file: Path) -> None:
    data = np.frombuffer(mlp_file.read_bytes(), np.uint8).copy()
    file = ModelFile(bytes(data))
    file.data = bytes(data[: len(data) // 50])
    with pytest.raises(ModelFileError, match="graphs that cannot be parsed"):
        read_graph(file)
