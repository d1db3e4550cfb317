"""Prepares the files of a model, starts its contenders one by one, compares their losses, then times them in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interleaving import ContenderError, Start, measure, start
from local_steps.contending import HERE, PEERS_PYTHON, Contender, command
from local_steps.losses import differing
from local_steps.table import with_ratios

__all__ = ["Effort", "measure_group", "prepare"]


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Attributes:
        slices: turns that each contender gets.
        seconds: length of a turn.
        starts: processes whose start is timed.
    """

    slices: int
    seconds: float
    starts: int


def prepare(name: str, size: int, folder: Path, *, peers: bool) -> None:
    """Writes what contenders read, in processes of its own: no contender shares one with a converter.

    Args:
        name: key of `CASES`.
        size: of the batch.
        folder: where to; empty.
        peers: also what the peers' environment reads.
    """
    programs = [[sys.executable, "-m", "local_steps.keras_models", name, str(size), str(folder)]]
    if peers:
        programs += [
            [str(PEERS_PYTHON), "-m", f"local_steps.{module}", name, str(folder)]
            for module in ("onnx_artifacts", "live_activations")
        ]
    for program in programs:
        done = subprocess.run(program, cwd=HERE, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise SystemExit(f"{' '.join(program)} failed:\n{done.stderr[-4000:]}")


def measure_group(
    name: str, size: int, threads: int, folder: Path, contenders: tuple[Contender, ...], effort: Effort
) -> list[dict[str, Any]]:
    """All contenders on one model, batch and number of threads.

    Returns:
        A row each, in their order; one that was not measured says why not.
    """
    contenders = tuple(each for each in contenders if not each.only or name in each.only)
    why_not: dict[str, str] = {}
    starts: dict[str, list[Start]] = {}
    commands: dict[str, list[str]] = {}
    for each in contenders:
        if name in each.left_out:
            why_not[each.name] = f"left out: {each.left_out[name]}"
        elif each.elsewhere and not PEERS_PYTHON.exists():
            why_not[each.name] = "left out: no .venv-peers (make bench-peers)"
        else:
            commands[each.name] = command(each, name, threads, folder)
            try:
                starts[each.name] = [
                    start(commands[each.name], threads=threads, cwd=HERE) for _ in range(effort.starts)
                ]
            except ContenderError as error:
                why_not[each.name] = f"FAILED: {error}"
    losses = {each: found[0].losses for each, found in starts.items()}
    why_not.update({each: f"FAILED: {wrong}" for each, wrong in differing(losses).items()})
    running = {each: given for each, given in commands.items() if each not in why_not}
    timings = measure(running, threads=threads, slices=effort.slices, seconds=effort.seconds, cwd=HERE)
    needs = json.loads((folder / "memory.json").read_text())
    group = []
    for each in contenders:
        row = {"model": name, "batch": size, "threads": threads, "contender": each.name, "family": each.family}
        row["why_not"] = why_not.get(each.name)
        if each.name in timings:
            found, timing = starts[each.name], timings[each.name]
            row["step_ms"] = round(timing.step_ms, 4)
            row["peak_rss_mb"] = round(timing.peak_rss_mb, 1)
            row["pss_mb"] = round(statistics.median(one.pss_mb for one in found), 1)
            row["cold_start_s"] = round(statistics.median(one.seconds for one in found), 3)
            row["losses"] = found[0].losses
            row.update(needs)
        group.append(row)
    return with_ratios(group)
