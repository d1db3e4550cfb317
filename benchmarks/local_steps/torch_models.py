"""The models in PyTorch, with the weights that Keras drew. Images and series are channels first here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from local_steps.cases import CASES, Case, load_batch

__all__ = ["build", "fuse", "load_inputs", "load_weights"]


class Block(nn.Module):
    """A convolution without bias, a normalisation as Keras's MobileNetV2 has it, and ReLU6 or nothing."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        # Where the stride is 2, Keras pads below and on the right only, as all sizes here are even.
        self.pad = (0, 1, 0, 1) if stride == 2 else None
        padding = 0 if stride == 2 else kernel // 2
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=1e-3)
        self.relu = relu

    def forward(self, x: Any) -> Any:
        x = self.norm(self.convolution(functional.pad(x, self.pad) if self.pad else x))
        return functional.relu6(x) if self.relu else x

    def fuse(self) -> None:
        """Makes the normalisation with moving averages part of the convolution."""
        self.convolution = fuse_conv_bn_eval(self.convolution, self.norm)
        self.norm = nn.Identity()


class InvertedResidual(nn.Module):
    """Sandler et al. 2018, figure 3."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        blocks = [Block(inputs, hidden)] if expansion > 1 else []
        blocks += [Block(hidden, hidden, 3, stride, hidden), Block(hidden, outputs, relu=False)]
        self.blocks, self.adds = nn.Sequential(*blocks), stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        return x + self.blocks(x) if self.adds else self.blocks(x)


def _divisible(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class HeadAndBase(nn.Module):
    """A network whose last layer can be trained alone."""

    def __init__(self, base: nn.Module, head: nn.Module, head_only: bool):
        super().__init__()
        self.base, self.head, self.head_only = base, head, head_only
        if head_only:
            base.requires_grad_(False)

    def train(self, mode: bool = True) -> HeadAndBase:
        super().train(mode)
        if self.head_only:
            self.base.eval()
        return self

    def forward(self, x: Any) -> Any:
        if not self.head_only:
            return self.head(self.base(x))
        with torch.no_grad():
            features = self.base(x)
        return self.head(features)


def mobilenet_v2(case: Case, alpha: float = 0.35) -> nn.Module:
    """Sandler et al. 2018, table 2."""
    channels = _divisible(32 * alpha)
    stack: list[nn.Module] = [Block(3, channels, 3, 2)]
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, width, repeats, stride in plan:
        for index in range(repeats):
            outputs = _divisible(width * alpha)
            stack.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expansion))
            channels = outputs
    stack += [Block(channels, 1280), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return HeadAndBase(nn.Sequential(*stack), nn.Linear(1280, case.classes), case.head_only)


class Recurrent(nn.Module):
    """An LSTM and a layer on its last output."""

    def __init__(self, case: Case):
        super().__init__()
        self.lstm = nn.LSTM(case.shape[1], 64, batch_first=True)
        # Keras has one bias where PyTorch has two: the second stays 0 and is not trained.
        nn.init.zeros_(self.lstm.bias_hh_l0)
        self.lstm.bias_hh_l0.requires_grad_(False)
        self.head = nn.Linear(64, case.classes)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    """Causal self-attention with as many heads as Keras is given."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Any) -> Any:
        split = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        query, key, value = (each(x).reshape(split).transpose(1, 2) for each in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(x.shape))


class Transformer(nn.Module):
    """As in keras_models; scores come one row a token, as the loss wants them."""

    def __init__(self, case: Case, width: int = 64):
        super().__init__()
        self.embedding = nn.Embedding(case.tokens, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.LayerNorm(width, 1e-3),
                    Attention(width, 4),
                    nn.LayerNorm(width, 1e-3),
                    nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width)),
                ]
            )
            for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width, 1e-3), nn.Linear(width, case.classes)

    def forward(self, words: Any) -> Any:
        x = self.embedding(words)
        for first, attention, second, dense in self.blocks:
            x = x + attention(first(x))
            x = x + dense(second(x))
        return self.head(self.norm(x)).flatten(0, 1)


def build(name: str) -> nn.Module:
    """One of the models, in training mode, giving logits."""
    case = CASES[name]
    if name.startswith("mobilenet_v2"):
        return mobilenet_v2(case).train()
    if name == "lstm":
        return Recurrent(case)
    if name == "transformer":
        return Transformer(case)
    stacks: dict[str, list[nn.Module]] = {
        "2nn": [nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)],
        "fedavg_cnn": [
            *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 10)),
        ],
        "smartwatch_1d_cnn": [
            *(nn.Conv1d(6, 32, 5), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(32, 64, 5), nn.ReLU()),
            *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 7)),
        ],
    }
    return nn.Sequential(*stacks[name])


def fuse(model: nn.Module) -> None:
    """Makes the normalisations of a frozen base part of its convolutions."""
    for module in model.modules():
        if isinstance(module, Block):
            module.fuse()
    model.base.requires_grad_(False)


def load_inputs(name: str, folder: Path) -> tuple[Any, Any]:
    """The batch as tensors: channels first, one class a row of logits."""
    x, y = load_batch(folder)
    if CASES[name].tokens or name == "lstm":
        return torch.from_numpy(x), torch.from_numpy(y.reshape(-1)).long()
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))), torch.from_numpy(y).long()


def load_weights(name: str, model: nn.Module, folder: Path) -> None:
    """Fills a model with the arrays that Keras drew, layer by layer in Keras's order."""
    with np.load(folder / "weights.npz") as stored:
        arrays = iter([stored[key] for key in stored.files])
    flat = {64 * 7 * 7: (7, 7, 64)} if name == "fedavg_cnn" else {}
    for module in model.modules():
        _fill(module, arrays, flat)
    if (left := len(list(arrays))) > 0:
        raise SystemExit(f"{name}: {left} arrays of Keras's have no place in PyTorch's model.")


def _fill(module: nn.Module, arrays: Iterator[Any], flat: dict[int, tuple[int, ...]]) -> None:
    values: dict[str, Any]
    if isinstance(module, nn.Linear):
        kernel = next(arrays)
        if module.in_features in flat:  # what was flattened lay channels last
            kernel = kernel.reshape(*flat[module.in_features], -1).transpose(2, 0, 1, 3)
        # The projections of Keras's attention have an axis of heads.
        values = {"weight": kernel.reshape(module.in_features, -1).T, "bias": next(arrays).reshape(-1)}
    elif isinstance(module, nn.Conv2d | nn.Conv1d):
        kernel = next(arrays)
        own = kernel.swapaxes(-1, -2) if module.groups > 1 else kernel
        values = {"weight": np.moveaxis(own, (-1, -2), (0, 1))}
        if module.bias is not None:
            values["bias"] = next(arrays)
    elif isinstance(module, nn.BatchNorm2d):
        values = {name: next(arrays) for name in ("weight", "bias", "running_mean", "running_var")}
    elif isinstance(module, nn.LayerNorm):
        values = {name: next(arrays) for name in ("weight", "bias")}
    elif isinstance(module, nn.Embedding):
        values = {"weight": next(arrays)}
    elif isinstance(module, nn.LSTM):
        values = {"weight_ih_l0": next(arrays).T, "weight_hh_l0": next(arrays).T, "bias_ih_l0": next(arrays)}
    else:
        return
    for name, value in values.items():
        tensor = getattr(module, name)
        if tuple(tensor.shape) != value.shape:
            raise SystemExit(f"{type(module).__name__}.{name}: expected {tuple(tensor.shape)}, got {value.shape}.")
        tensor.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))
