"""Counts the activations that a step cannot do without; run in the peers' environment, after onnx_artifacts.

    python -m local_steps.live_activations MODEL FOLDER

adds to FOLDER/memory.json ``live_mb``, in MiB as all memory here. They are what PyTorch keeps from the forward pass for
the backward pass, without weights; where nothing is kept, below a frozen base, what goes into a layer and comes out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from local_steps.torch_models import build, load_inputs


def live_megabytes(model: Any, x: Any, y: Any) -> float:
    """Of one step of a model on a batch."""
    weights = {_place(each) for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}
    most_at_once = 0

    def keep(tensor: Any) -> Any:
        if _place(tensor) not in weights:
            kept[_place(tensor)] = tensor  # held, so that no other tensor gets its place
        return tensor

    def look(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal most_at_once
        tensors = [each for each in (*inputs, output) if isinstance(each, torch.Tensor)]
        most_at_once = max(most_at_once, sum(each.nbytes for each in tensors))

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(look)
    # Without oneDNN, whose LSTM keeps twice as much, in a form of its own.
    with torch.backends.mkldnn.flags(enabled=False), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        functional.cross_entropy(model(x), y)
    return max(most_at_once, sum(each.untyped_storage().nbytes() for each in kept.values())) / 2**20


def _place(tensor: Any) -> int:
    return int(tensor.untyped_storage().data_ptr())


def main() -> None:
    """Completes the file of one model."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    live = live_megabytes(build(name), *load_inputs(name, folder))
    file = folder / "memory.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "live_mb": live}))


if __name__ == "__main__":
    main()
