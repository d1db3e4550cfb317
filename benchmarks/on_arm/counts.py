"""What the plugin wrote, as numbers: instructions a step, and which function they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Block", "Cost", "Mapped", "by_function", "read_blocks", "read_maps", "short", "total"]


class Block(NamedTuple):
    """A block of code: where it lies, its instructions, how many of these load or store, how often it ran."""

    address: int
    instructions: int
    memory: int
    runs: int


class Mapped(NamedTuple):
    """A stretch of the guest's memory that shows a file."""

    start: int
    end: int
    offset: int
    path: str


@dataclass(frozen=True)
class Cost:
    """Instructions of one step.

    Attributes:
        instructions: executed.
        memory: of these load or store.
    """

    instructions: float
    memory: float


def read_blocks(lines: Iterable[str]) -> list[Block]:
    """The plugin's lines ``address instructions memory runs``, the address in base 16.

    Raises:
        ValueError: a line is something else.
    """
    blocks = []
    for line in lines:
        fields = line.split()
        if len(fields) != 4:
            raise ValueError(f"Expected address, instructions, memory and runs, got {line!r}.")
        blocks.append(Block(int(fields[0], 16), *map(int, fields[1:])))
    return blocks


def read_maps(lines: Iterable[str]) -> list[Mapped]:
    """The files in ``/proc/self/maps``."""
    found = []
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            start, end = (int(each, 16) for each in fields[0].split("-"))
            found.append(Mapped(start, end, int(fields[2], 16), fields[5].rstrip("\n")))
    return found


def total(blocks: Iterable[Block], steps: int) -> Cost:
    """What one of several steps cost."""
    instructions = memory = 0
    for block in blocks:
        instructions += block.instructions * block.runs
        memory += block.memory * block.runs
    return Cost(instructions / steps, memory / steps)


def by_function(
    blocks: Iterable[Block], maps: Sequence[Mapped], functions: Callable[[str], Callable[[int], str | None]], steps: int
) -> dict[str, Cost]:
    """What one step cost in each function, the dearest first.

    Args:
        blocks: what ran.
        maps: where the files lie.
        functions: gives for a file what names the function at an offset in it.
        steps: how many steps ran.

    Returns:
        Costs by name; code without a name counts for its file, in brackets.
    """
    grouped: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        at = next((each for each in maps if each.start <= block.address < each.end), None)
        name = functions(at.path)(block.address - at.start + at.offset) if at else None
        grouped[name or f"[{Path(at.path).name if at else 'elsewhere'}]"].append(block)
    costs: Mapping[str, Cost] = {name: total(group, steps) for name, group in grouped.items()}
    return dict(sorted(costs.items(), key=lambda item: -item[1].instructions))


def short(name: str, width: int = 100) -> str:
    """A C++ name without what is in its angle brackets and parentheses."""
    kept, depth = [], 0
    for character in name:
        depth += character in "<("
        if not depth:
            kept.append(character)
        depth -= character in ">)"
    return ("".join(kept).strip() or name)[:width]
