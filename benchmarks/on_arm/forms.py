"""What the converter decides, as groups of forms: the naive one, the converter's own, and others.

What the converter chooses is not written down here: the op itself goes through its lowerings, so that the comparison
is always with what a file of today contains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from on_arm import ways

__all__ = ["CHOSEN", "GROUPS", "NAIVE", "Form", "Group"]

NAIVE = "naive"
CHOSEN = "chosen"


@dataclass(frozen=True)
class Form:
    """One way.

    Attributes:
        name: `NAIVE`, `CHOSEN`, or what it does.
        function: of the group's arrays.
        lowered: it goes through the converter's lowerings.
    """

    name: str
    function: Callable[..., Any]
    lowered: bool = False


@dataclass(frozen=True)
class Group:
    """Ways to compute the same thing.

    Attributes:
        title: what it is, and its size.
        shapes: of its float32 arguments.
        forms: the naive one first.
    """

    title: str
    shapes: tuple[tuple[int, ...], ...]
    forms: tuple[Form, ...]

    def arrays(self) -> list[Any]:
        """The arguments: random, and as many below 0 as above."""
        random = np.random.default_rng(0)
        return [random.normal(size=shape).astype(np.float32) for shape in self.shapes]


def _chosen(function: Callable[..., Any]) -> Form:
    return Form(CHOSEN, function, lowered=True)


_MIDDLE, _KERNEL, _OUT = (10, 14, 14, 32), (5, 5, 32, 64), (10, 14, 14, 64)
_FIRST, _FIRST_KERNEL, _FIRST_OUT = (10, 28, 28, 1), (5, 5, 1, 32), (10, 28, 28, 32)
_MAPS, _TAPS = (8, 24, 24, 48), (3, 3, 48, 1)
_LEFT_TRANSPOSED = (
    Form(NAIVE, ways.matmul(left=True)),
    _chosen(ways.matmul(left=True)),
    Form("left side transposed first", ways.left_first),
    Form("both sides transposed first", ways.both_first),
    Form("operands exchanged, result transposed", ways.exchanged),
)

GROUPS = {
    "conv": Group(
        "convolution 5×5, 14×14×32 → 64, batch 10",
        (_MIDDLE, _KERNEL),
        (
            Form(NAIVE, ways.conv),
            _chosen(ways.conv),
            Form("GATHER, right side as it is", ways.conv_gather(False)),
            Form("GATHER, right side transposed first", ways.conv_gather(True)),
            Form("slices and CONCATENATION", ways.conv_slices),
        ),
    ),
    "conv-filter": Group(
        "gradient of its filter, 5×5×32 → 64",
        (_MIDDLE, _OUT),
        (Form(NAIVE, ways.conv_filter_as_conv(5)), _chosen(ways.conv_filter(5, 32))),
    ),
    "conv-input": Group(
        "gradient of its input, 14×14×32", (_KERNEL, _OUT), (Form(NAIVE, ways.conv_input), _chosen(ways.conv_input))
    ),
    "first-conv": Group(
        "convolution 5×5, 28×28×1 → 32, batch 10",
        (_FIRST, _FIRST_KERNEL),
        (
            Form(NAIVE, ways.conv),
            _chosen(ways.conv),
            Form("GATHER, right side as it is", ways.conv_gather(False)),
            Form("slices and CONCATENATION", ways.conv_slices),
        ),
    ),
    "first-conv-filter": Group(
        "gradient of its filter, 5×5×1 → 32",
        (_FIRST, _FIRST_OUT),
        (Form(NAIVE, ways.conv_filter_as_conv(5)), _chosen(ways.conv_filter(5, 1))),
    ),
    "conv-1x1": Group(
        "convolution 1×1, 24×24×16 → 96, batch 8",
        ((8, 24, 24, 16), (1, 1, 16, 96)),
        (Form(NAIVE, ways.conv), _chosen(ways.conv)),
    ),
    "dense": Group(
        "Dense 784 → 200, batch 10",
        ((10, 784), (784, 200)),
        (
            Form(NAIVE, ways.matmul()),
            _chosen(ways.matmul()),
            Form("right side transposed first", ways.right_first),
        ),
    ),
    "dense-weight": Group(
        "gradient of its weight, 784 × 200",
        ((10, 784), (10, 200)),
        _LEFT_TRANSPOSED,
    ),
    "dense-input": Group(
        "gradient of its input, 10 × 784",
        ((10, 200), (784, 200)),
        (
            Form(NAIVE, ways.matmul(right=True)),
            _chosen(ways.matmul(right=True)),
            Form("right side transposed by an op", lambda x, y: ways.rank_3(x, tf.transpose(y))),
        ),
    ),
    "tall": Group(
        "product [1960, 800] × [800, 64]",
        ((1960, 800), (800, 64)),
        (
            Form(NAIVE, ways.matmul()),
            _chosen(ways.matmul()),
            Form("right side as it is", ways.rank_3),
            Form("right side transposed first", ways.right_first),
        ),
    ),
    "tall-left": Group(
        "product [1960, 800]ᵀ × [1960, 64]",
        ((1960, 800), (1960, 64)),
        _LEFT_TRANSPOSED,
    ),
    "max-pool": Group(
        "gradient of maximum pooling 2×2, 28×28×32, batch 10 (with the pooling)",
        ((10, 28, 28, 32), (10, 14, 14, 32)),
        (
            Form(NAIVE, ways.max_pool_grad_gather),
            _chosen(ways.max_pool_grad),
            Form("RESIZE_NEAREST_NEIGHBOR", ways.max_pool_grad_resize),
            Form("broadcast arithmetic", ways.max_pool_grad_broadcast),
        ),
    ),
    "depthwise": Group(
        "depthwise convolution 3×3, 24×24×48, batch 8",
        (_MAPS, _TAPS),
        (Form(NAIVE, ways.depthwise), _chosen(ways.depthwise), Form("taps", ways.depthwise_taps)),
    ),
    "depthwise-filter": Group(
        "gradient of its filter, 3×3×48",
        (_MAPS, _MAPS),
        (Form(NAIVE, ways.depthwise_filter_as_depthwise), _chosen(ways.depthwise_filter)),
    ),
    "depthwise-input": Group(
        "gradient of its input, 24×24×48",
        (_TAPS, _MAPS),
        (Form(NAIVE, ways.depthwise_input_as_depthwise), _chosen(ways.depthwise_input)),
    ),
    "depthwise-strided-filter": Group(
        "gradient of a depthwise filter, 3×3×48, stride 2, 48×48, batch 8",
        ((8, 48, 48, 48), _MAPS),
        (
            Form(NAIVE, ways.strided_filter_taps),
            _chosen(ways.strided_filter),
            Form("SLICE of a reshaped image", ways.strided_filter_reshaped),
        ),
    ),
    "relu": Group(
        "gradient of ReLU, 125,440 values (with the ReLU)",
        ((10, 14, 14, 64), (10, 14, 14, 64)),
        (
            Form(NAIVE, lambda x, g: tf.where(tf.nn.relu(x) > 0.0, g, tf.zeros_like(g))),
            _chosen(ways.relu_grad),
            Form("times cast(x > 0)", lambda x, g: g * tf.cast(tf.nn.relu(x) > 0.0, tf.float32)),
        ),
    ),
    "relu6": Group(
        "gradient of ReLU6, 221,184 values (with the ReLU6)",
        (_MAPS, _MAPS),
        (
            Form(NAIVE, ways.relu6_grad_comparing),
            _chosen(ways.relu6_grad),
        ),
    ),
}
"""What the lowerings decide, by name; shapes are those of the FedAvg CNN, the 2NN and MobileNetV2."""
