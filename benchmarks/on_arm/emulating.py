"""Runs a file's signature on an emulated Raspberry Pi and reads what it cost."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from on_arm.counts import Cost, by_function, read_blocks, read_maps, total
from on_arm.elf import read_functions
from on_arm.rooting import BOARDS, HERE

__all__ = ["Run", "run"]


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
    file: Path,
    inputs: Mapping[str, Any],
    *,
    board: str,
    runtime: str,
    work: Path,
    signature: str = "train",
    steps: int = 2,
) -> Run:
    """Emulates some steps on one thread.

    Args:
        folder: of `set_up`.
        file: the ``.tflite``.
        inputs: of the signature, by name.
        board: key of `BOARDS`.
        runtime: one that the board has.
        work: an empty folder for what the emulated process reads and writes.
        signature: which one runs.
        steps: how many are counted, after two that are not.

    Raises:
        SystemExit: the emulated process failed.
    """
    host, root = folder.resolve() / "host", folder.resolve() / board
    (work / "model.tflite").write_bytes(file.read_bytes())
    np.savez(work / "inputs.npz", **inputs)
    # In its own loader, so that the emulator sees the libraries that it was built with.
    loader = next((host / "lib64").glob("ld-linux*.so.*"))
    libraries = ":".join(sorted({str(each.parent) for each in host.glob("**/*-linux-gnu/*.so*")}))
    plugin = f"{folder.resolve() / 'counting.so'},to={work / 'counts'}"
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
    command += [root / "usr/bin/python3.11", HERE / "guest.py", runtime, work, signature, str(steps)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace")
    if done.returncode or not (work / "counts").exists():
        raise SystemExit(f"{file} on {runtime}, {board}: the emulated process failed:\n{done.stderr[-2000:]}")
    blocks = read_blocks((work / "counts").read_text().splitlines())
    maps = read_maps((work / "maps").read_text().splitlines())
    with np.load(work / "outputs.npz") as stored:
        outputs = dict(stored)
    functions = _demangled(by_function(blocks, maps, _naming(), steps))
    return Run(total(blocks, steps), functions, outputs, tuple(json.loads((work / "losses.json").read_text())))


def _naming() -> Callable[[str], Callable[[int], str | None]]:
    @functools.cache
    def naming(path: str) -> Callable[[int], str | None]:
        return read_functions(Path(path)).at

    return naming


def _demangled(costs: Mapping[str, Cost]) -> dict[str, Cost]:
    """C++ names as they are written, where this machine has binutils."""
    try:
        names = subprocess.run(["c++filt"], input="\n".join(costs), capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        return dict(costs)
    return dict(zip(names.splitlines(), costs.values()))
