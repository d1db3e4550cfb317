"""Evaluates versions of runs on the operator's data, one after the other, each in a process of its own.

The server itself loads no interpreter: a model that ends its process ends nothing else. The process does what ``edgefl
evaluate`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from edgefl_server.http.context import Context
from edgefl_server.storage import CentralWork, keep_central, next_central
from edgefl_server.storage.state import ServerState

__all__ = ["evaluate_centrally"]

_LONGEST_SECONDS = 3600.0
"""An evaluation that takes longer is ended: the next version waits for it."""
_ATTEMPTS = 3
"""A process that is killed, for want of memory for example, is started so often for a version."""
_PAUSE_SECONDS = 1.0
_TROUBLE = "evaluate on the server's data"
_FOLDER = "evaluating"
"""A folder beside the server's state, for what a process is given: what a killed one left goes with the next."""
_COMMAND = (sys.executable, "-m", "edgefl.cli.main", "evaluate")


async def evaluate_centrally(context: Context) -> None:
    """Evaluates what is due until it is cancelled; ends the process that is at work then."""
    state = context.state
    folder = state.folder / _FOLDER
    await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)
    while True:
        try:
            work = await run_in_threadpool(next_central, state)
            if work is None:
                state.troubles.clear("", _TROUBLE)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            metrics, examples, why = await _evaluated(work, folder)
            await run_in_threadpool(keep_central, state, work.run, work.version, metrics, examples, why)
        except Exception as error:  # such as a full disk: it is told among the troubles, and tried again later
            await _rest(state, error)


async def _rest(state: ServerState, error: Exception) -> None:
    state.troubles.note("", _TROUBLE, error, state.clock())
    await asyncio.sleep(max(_PAUSE_SECONDS, state.troubles.rest("", _TROUBLE, state.clock())))


async def _evaluated(work: CentralWork, folder: Path) -> tuple[dict[str, float], int, str]:
    """The metrics, on how many examples, and why there are none."""
    why = ""
    for _ in range(_ATTEMPTS):
        with _emptied(folder):
            code, out, said = await _run(await run_in_threadpool(_arguments, work, folder))
        if code == 0:
            try:
                return _read(out)
            except (ValueError, KeyError, TypeError) as error:
                return {}, 0, f"its process answered something else: {type(error).__name__}"
        why = said or f"its process ended with {code}"
        if code is not None and code >= 0:  # it said what is wrong, and would say it again
            break
    return {}, 0, why


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """Makes the folder, and deletes it with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _arguments(work: CentralWork, folder: Path) -> list[str]:
    """Gives the files of a work the names by which they are known, in a folder; returns the command's words."""
    model, data, weights = folder / "model.tflite", folder / "data.npz", folder / "weights.npy"
    model.symlink_to(work.model.absolute())
    data.symlink_to(work.data.absolute())
    np.save(weights, np.fromfile(work.weights, "<f4"))
    return [*_COMMAND, str(model), "--data", str(data), "--weights", str(weights), "--format", "json"]


async def _run(command: list[str]) -> tuple[int | None, bytes, str]:
    """Runs a process: its exit code (negative: the signal that ended it; 256: it took too long), output, last line."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_be_nice,
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), _LONGEST_SECONDS)
    except asyncio.TimeoutError:
        await _end(process)
        return 0x100, b"", f"its process took longer than {_LONGEST_SECONDS:g} s"
    except BaseException:
        await _end(process)
        raise
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    code = process.returncode
    killed = code is not None and code < 0
    return code, out, f"its process was ended by signal {-code}" if killed and code else _said(lines)


def _said(lines: list[str]) -> str:
    """Makes a sentence for people of the last line, which is JSON where the process said what was wrong."""
    last = lines[-1] if lines else ""
    try:
        document = json.loads(last)
        return " ".join(filter(None, (document["message"], document["hint"])))
    except (ValueError, KeyError, TypeError):
        return last


def _be_nice() -> None:
    """Lets the server itself go first."""
    with contextlib.suppress(OSError):  # where that is not allowed, it competes with the server, and ends all the same
        os.nice(10)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
        process.kill()
    await process.wait()


def _read(out: bytes) -> tuple[dict[str, float], int, str]:
    document: dict[str, Any] = json.loads(out)
    metrics = {str(name): float(value) for name, value in document["metrics"].items()}
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return finite, int(document["examples"]), "" if finite else "no metric is a finite number"
