"""Runs signatures of files on an emulated Raspberry Pi and reads what they cost."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from on_arm.counts import Cost, Mapped, by_function, read_blocks, read_maps, total
from on_arm.elf import read_functions
from on_arm.rooting import BOARDS, HERE

__all__ = ["Run", "losses_here", "run"]


@dataclass(frozen=True)
class Run:
    """What a run found.

    Attributes:
        cost: of one step.
        functions: the same, by the function that the instructions belong to.
        outputs: of the last step.
        losses: of all steps, the two that are not counted as well; empty where there is no output of that name.
    """

    cost: Cost
    functions: Mapping[str, Cost]
    outputs: Mapping[str, Any]
    losses: tuple[float, ...]


def run(
    folder: Path,
    files: Sequence[tuple[bytes, Mapping[str, Any]]],
    *,
    board: str,
    runtime: str,
    signature: str = "train",
    steps: int = 2,
) -> list[Run]:
    """Emulates some steps of each file on one thread, all in one process.

    Args:
        folder: of `set_up`.
        files: ``.tflite`` files, each with the inputs of its signature by name.
        board: key of `BOARDS`.
        runtime: one that the board has.
        signature: which one runs.
        steps: how many are counted, after two that are not.

    Returns:
        What was found for each file.

    Raises:
        SystemExit: the emulated process failed.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        command = [*_command(folder.resolve(), board, runtime, work), runtime, name, signature, str(steps)]
        losses = _execute(command, work, files, f"{runtime} on {board}")
        maps = read_maps((work / "maps").read_text().splitlines())
        return [_read(work, index, maps, steps, losses[index]) for index in range(len(files))]


def losses_here(
    files: Sequence[tuple[bytes, Mapping[str, Any]]], *, runtime: str, signature: str = "train", steps: int = 2
) -> list[list[float]]:
    """The losses of the same steps on this machine's own processor."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, str(HERE / "guest.py"), runtime, name, signature, str(steps)]
        return _execute(command, Path(name), files, f"{runtime} on this machine")


def _execute(
    command: Sequence[str], work: Path, files: Sequence[tuple[bytes, Mapping[str, Any]]], where: str
) -> list[list[float]]:
    for index, (file, inputs) in enumerate(files):
        (work / f"{index}.tflite").write_bytes(file)
        np.savez(work / f"{index}.npz", **inputs)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise SystemExit(f"{where}: the process failed:\n{done.stderr[-2000:]}")
    losses: list[list[float]] = json.loads((work / "losses.json").read_text())
    return losses


def _read(work: Path, index: int, maps: Sequence[Mapped], steps: int, losses: Sequence[float]) -> Run:
    blocks = read_blocks((work / f"counts.{index}").read_text().splitlines())
    with np.load(work / f"{index}.out.npz") as stored:
        outputs = dict(stored)
    return Run(total(blocks, steps), _demangled(by_function(blocks, maps, _named_in, steps)), outputs, tuple(losses))


def _command(folder: Path, board: str, runtime: str, work: Path) -> list[str]:
    host, root = folder / "host", folder / board
    # In its own loader, so that the emulator sees the libraries that it was built with.
    loader = next((host / "lib64").glob("ld-linux*.so.*"))
    libraries = ":".join(sorted({str(each.parent) for each in host.glob("**/*-linux-gnu/*.so*")}))
    plugin = f"{folder / 'counting.so'},to={work / 'counts'}"
    extra = sorted({str(each.parent) for each in root.glob("usr/lib/*-linux-gnu*/*/lib*.so.*")})
    environment = {
        "PYTHONHOME": root / "usr",
        "PYTHONPATH": root / "site" / runtime,
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        **({"LD_LIBRARY_PATH": ":".join(extra)} if extra else {}),
    }
    command = [loader, "--library-path", libraries, host / "usr/bin" / BOARDS[board].qemu, "-cpu", BOARDS[board].cpu]
    command += ["-plugin", plugin, "-L", root]
    for key, value in environment.items():
        command += ["-E", f"{key}={value}"]
    command += [root / "usr/bin/python3.11", HERE / "guest.py"]
    return list(map(str, command))


@functools.cache
def _named_in(path: str) -> Callable[[int], str | None]:
    return read_functions(Path(path)).at


def _demangled(costs: Mapping[str, Cost]) -> dict[str, Cost]:
    """C++ names as they are written, where this machine has binutils."""
    try:
        names = subprocess.run(["c++filt"], input="\n".join(costs), capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        return dict(costs)
    return dict(zip(names.splitlines(), costs.values()))
