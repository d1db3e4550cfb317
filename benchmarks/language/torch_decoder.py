"""The decoder in PyTorch, with the factored form of LoRA that its users write (Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from language.sizes import PROJECTIONS, RATE, SIZES, batch_of, causal_mask, read, rotations

__all__ = ["make_step"]


def make_step(name: str, folder: Path, threads: int) -> Callable[[], float]:
    """A step of plain SGD on the adapters; the base is mapped from its files."""
    torch.set_num_threads(threads)
    size = SIZES[name]
    base = {key: torch.from_numpy(each) for key, each in read(folder / "base").items()}
    adapters = {key: torch.tensor(each, requires_grad=True) for key, each in read(folder / "adapters").items()}
    trained = list(adapters.values())
    cosines, sines = (torch.from_numpy(each) for each in rotations(size))
    mask = torch.from_numpy(causal_mask(size))
    x, y = (torch.from_numpy(each).long() for each in batch_of(size))

    def dense(given: Any, layer: str) -> Any:
        made = given @ base[f"{layer}/kernel"]
        if layer.rpartition("_")[2] in PROJECTIONS:
            made = made + (given @ adapters[f"{layer}/lora_kernel_a"]) @ adapters[f"{layer}/lora_kernel_b"]
        return made

    def normed(given: Any, layer: str) -> Any:
        return functional.rms_norm(given, (size.width,), base[f"{layer}/scale"], 1e-6)

    def rotated(given: Any) -> Any:
        one, other = given.chunk(2, -1)
        return given * cosines + torch.cat([-other, one], -1) * sines

    def logits() -> Any:
        hidden = base["tokens_table/embeddings"][x]
        for number in range(size.blocks):
            block = f"block_{number}"
            inner = normed(hidden, f"{block}_before_attention")
            query, key, value = (
                dense(inner, f"{block}_{each}").view(size.rows, size.length, -1, size.head_width)
                for each in ("query", "key", "value")
            )
            query, key = rotated(query), rotated(key)
            if size.groups < size.heads:
                key, value = (each.repeat_interleave(size.heads // size.groups, 2) for each in (key, value))
            query, key, value = (each.transpose(1, 2) for each in (query, key, value))
            seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            hidden = hidden + dense(seen.transpose(1, 2).reshape(inner.shape), f"{block}_output")
            inner = normed(hidden, f"{block}_before_gate")
            wide = functional.silu(dense(inner, f"{block}_gate")) * dense(inner, f"{block}_up")
            hidden = hidden + dense(wide, f"{block}_down")
        return dense(normed(hidden, "before_head"), "head")

    def step() -> float:
        loss = functional.cross_entropy(logits().flatten(0, 1), y.flatten())
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            torch._foreach_add_(trained, gradients, alpha=-RATE)
        return loss.item()

    return step
