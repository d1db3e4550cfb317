"""PyTorch's training step of the decoder of `frozen_bases.py`, with its LoRA beside frozen weights: ``xW + (xA)B``.

Run by `frozen_bases.py` in the environment of the peers; prints what that prints of edgefl.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

RANK, TOKENS = 8, 64


class Projection(nn.Module):
    """A frozen matrix and two thin ones that are trained."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(outputs, inputs) * 0.02, requires_grad=False)
        self.a = nn.Parameter(torch.randn(RANK, inputs) * 0.02)
        self.b = nn.Parameter(torch.zeros(outputs, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both products, added."""
        return functional.linear(x, self.kernel) + functional.linear(functional.linear(x, self.a), self.b)


class Block(nn.Module):
    """Attention and gated layers."""

    def __init__(self, width: int, heads: int, wide: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (Projection(width, width) for _ in range(4))
        self.gate, self.up, self.down = Projection(width, wide), Projection(width, wide), Projection(wide, width)

    def forward(self, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """What comes out of the block."""
        batch, tokens, width = x.shape
        shape = (batch, tokens, self.heads, width // self.heads)
        before = normed(x)
        query, key, value = (each(before).view(shape).transpose(1, 2) for each in (self.query, self.key, self.value))
        query, key = (each * cosines + turned(each) * sines for each in (query, key))
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).reshape(batch, tokens, width))
        between = normed(x)
        return x + self.down(functional.silu(self.gate(between)) * self.up(between))


def normed(x: torch.Tensor) -> torch.Tensor:
    """The root mean square of what comes out is 1."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def turned(x: torch.Tensor) -> torch.Tensor:
    """The second half, negative, before the first."""
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def memory(name: str) -> float:
    """A figure of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Trains and measures: words, width, blocks, heads, width of gated layers, rows, steps."""
    torch.set_num_threads(1)
    words, width, blocks, heads, wide, rows, steps = map(int, sys.argv[1:])
    embedding, head = (torch.randn(words, width) * 0.02 for _ in range(2))
    stack = nn.ModuleList(Block(width, heads, wide) for _ in range(blocks))
    size = width // heads
    angles = torch.outer(torch.arange(TOKENS).float(), 1e4 ** -(torch.arange(0, size, 2) / size))
    cosines, sines = (each.repeat(1, 2) for each in (angles.cos(), angles.sin()))
    x, y = (torch.randint(0, words, (rows, TOKENS)) for _ in range(2))
    optimizer = torch.optim.SGD([each for each in stack.parameters() if each.requires_grad], 0.01)
    times = []
    for step in range(4 + steps):
        begin = time.thread_time()
        hidden = embedding[x]
        for block in stack:
            hidden = block(hidden, cosines, sines)
        loss = functional.cross_entropy(functional.linear(normed(hidden), head).view(-1, words), y.view(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.thread_time() - begin)
        if step == 3:
            peak, anonymous = memory("VmHWM"), memory("RssAnon")
    print(peak, anonymous, memory("VmHWM"), memory("RssAnon"), 1000 * min(times[4:]))


if __name__ == "__main__":
    main()
