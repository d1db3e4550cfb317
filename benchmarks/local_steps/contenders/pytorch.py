"""PyTorch: eager, with its optimizer or the update by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from local_steps.cases import CASES
from local_steps.torch_models import build, fuse, load_inputs


def make_step(name: str, folder: Path, threads: int, form: str) -> Callable[[], float]:
    """A training step.

    A form is "torch.optim.SGD", "hand-written", or "channels last", which has the update by hand too, and in a frozen
    base normalisations that are part of convolutions.
    """
    torch.set_num_threads(threads)
    model = build(name)
    model.load_state_dict(torch.load(folder / "torch.pt", weights_only=True))
    x, y = load_inputs(name, folder)
    rate = CASES[name].learning_rate
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if form == "torch.optim.SGD":
        return _with_optimizer(model, torch.optim.SGD(trained, rate), x, y)
    if form == "channels last":
        if CASES[name].head_only:
            fuse(model)
        model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)

    def step() -> float:
        loss = functional.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            torch._foreach_add_(trained, gradients, alpha=-rate)
        return loss.item()

    return step


def _with_optimizer(model: Any, optimizer: Any, x: Any, y: Any) -> Callable[[], float]:
    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
