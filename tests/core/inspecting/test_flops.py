"""Floating-point operations are counted as the formula says."""

from __future__ import annotations

import pytest

from edgefl.inspecting.flops import KINDS, flops
from edgefl.inspecting.graph import Graph, Operator, Tensor

Shape = tuple[int, ...]


def graph(*subgraphs: tuple[list[Tensor], list[Operator]]) -> Graph:
    return Graph([each[0] for each in subgraphs], [each[1] for each in subgraphs], {"train": 0}, [0])


def single(name: str, given: list[Shape], result: Shape, dtype: str = "float32", **options: object) -> Graph:
    """One op over tensors of one type."""
    tensors = [Tensor(shape, dtype, 0) for shape in (*given, result)]
    op = Operator(name, 1, tuple(range(len(given))), (len(given),), **options)  # type: ignore[arg-type]
    return graph((tensors, [op]))


@pytest.mark.parametrize(
    ("name", "given", "result", "options", "expected"),
    [
        ("BATCH_MATMUL", [(3, 4, 5), (3, 5, 6)], (3, 4, 6), {}, {"matrix products": 2 * 3 * 4 * 5 * 6}),
        (
            "BATCH_MATMUL",
            [(3, 5, 4), (3, 5, 6)],
            (3, 4, 6),
            {"left_transposed": True},
            {"matrix products": 2 * 3 * 4 * 5 * 6},
        ),
        ("FULLY_CONNECTED", [(8, 20), (16, 20)], (8, 16), {}, {"matrix products": 2 * 8 * 16 * 20}),
        ("FULLY_CONNECTED", [(8, 20), (16, 20), (16,)], (8, 16), {}, {"matrix products": 2 * 8 * 16 * 20 + 8 * 16}),
        (
            "CONV_2D",
            [(2, 9, 9, 3), (8, 5, 5, 3), (8,)],
            (2, 5, 5, 8),
            {},
            {"convolutions": 2 * (2 * 5 * 5 * 8) * (5 * 5 * 3) + 2 * 5 * 5 * 8},
        ),
        # Two groups: each value sums over half of the input's channels.
        (
            "CONV_2D",
            [(2, 9, 9, 4), (8, 5, 5, 2)],
            (2, 5, 5, 8),
            {},
            {"convolutions": 2 * (2 * 5 * 5 * 8) * (5 * 5 * 2)},
        ),
        (
            "DEPTHWISE_CONV_2D",
            [(2, 9, 9, 4), (1, 3, 3, 8)],
            (2, 7, 7, 8),
            {},
            {"convolutions": 2 * (2 * 7 * 7 * 8) * 9},
        ),
        (
            "TRANSPOSE_CONV",
            [(4,), (8, 3, 3, 4), (2, 5, 5, 4)],
            (2, 11, 11, 8),
            {},
            {"convolutions": 2 * (2 * 5 * 5 * 4) * (3 * 3 * 8)},
        ),
        (
            "CONV_3D",
            [(1, 6, 6, 6, 2), (3, 3, 3, 2, 5)],
            (1, 4, 4, 4, 5),
            {},
            {"convolutions": 2 * (4**3 * 5) * (27 * 2)},
        ),
        ("ADD", [(4, 5), (5,)], (4, 5), {}, {"elementwise": 20}),
        ("ADD_N", [(4, 5)] * 3, (4, 5), {}, {"elementwise": 40}),
        ("EXP", [(4, 5)], (4, 5), {}, {"elementwise": 20}),
        ("SQUARED_DIFFERENCE", [(4, 5), (4, 5)], (4, 5), {}, {"elementwise": 40}),
        ("SOFTMAX", [(4, 5)], (4, 5), {}, {"elementwise": 100}),
        ("SUM", [(4, 5), (1,)], (4,), {}, {"reductions": 20}),
        ("MAX_POOL_2D", [(2, 8, 8, 3)], (2, 4, 4, 3), {"window": 4}, {"reductions": 2 * 4 * 4 * 3 * 4}),
        ("RESHAPE", [(4, 5), (1,)], (20,), {}, {}),
        ("GATHER", [(4, 5), (9,)], (9, 5), {}, {}),
    ],
)
def test_an_op_counts_by_its_formula(
    name: str, given: list[Shape], result: Shape, options: dict[str, object], expected: dict[str, int]
) -> None:
    counted = flops(single(name, given, result, **options), "train")
    assert counted == {**dict.fromkeys(KINDS, 0), **expected, "total": sum(expected.values())}


def test_a_product_with_a_matrix_of_int8_is_a_kind_of_its_own() -> None:
    tensors = [Tensor((8, 20), "float32", 0), Tensor((16, 20), "int8", 0), Tensor((8, 16), "float32", 0)]
    counted = flops(graph((tensors, [Operator("FULLY_CONNECTED", 12, (0, 1), (2,))])), "train")
    assert counted["int8 products"] == counted["total"] == 2 * 8 * 16 * 20


def test_computing_with_integers_counts_nothing() -> None:
    assert flops(single("MUL", [(4, 5), (4, 5)], (4, 5), dtype="int32"), "train")["total"] == 0


def test_a_comparison_of_floats_counts_though_its_result_is_none() -> None:
    tensors = [Tensor((6,), "float32", 0), Tensor((6,), "float32", 0), Tensor((6,), "bool", 0)]
    assert flops(graph((tensors, [Operator("LESS", 1, (0, 1), (2,))])), "train")["elementwise"] == 6


def test_of_branches_the_larger_one_counts_and_of_a_loop_one_turn() -> None:
    def adding(size: int) -> tuple[list[Tensor], list[Operator]]:
        return [Tensor((size,), "float32", 0)] * 2, [Operator("ADD", 1, (0, 0), (1,))]

    ops = [Operator("IF", 1, (), (), calls=(1, 2)), Operator("WHILE", 1, (), (), calls=(3, 4))]
    counted = flops(graph(([], ops), adding(5), adding(7), adding(11), adding(13)), "train")
    assert counted["elementwise"] == 7 + 11 + 13
