"""``num_threads="auto"``: measured once for each device and model, and remembered."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgefl.child_processes import ChildFailedError, run_child
from edgefl.errors import InvalidSettingError, RuntimeFailure, StorageError
from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.interpreter import runtime_module, runtime_version

__all__ = ["AUTO", "candidates", "check_threads", "choose_threads", "physical_cores", "time_threads"]

AUTO = "auto"
_SECONDS = 120.0
"""A child that takes longer hangs, or the model is so slow that looking for the best number is no use."""
_KEPT = 64
"""Models that are remembered; those chosen for longest ago are forgotten first."""

Timed = tuple[int, Mapping[int, float]]
"""A number of threads, and seconds of a step for each number that was timed."""


def check_threads(value: Any) -> int | str:
    """Returns a whole number of at least 1, or ``auto``.

    Raises:
        InvalidSettingError: it is something else.
    """
    if value == AUTO or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value  # type: ignore[no-any-return]
    raise InvalidSettingError(f"num_threads must be a whole number of at least 1 or {AUTO!r}, got {value!r}.")


def choose_threads(
    source: str | os.PathLike[str] | bytes,
    manifest: ModelManifest,
    runtime: str,
    remembered: Path | None = None,
    *,
    cores: int | None = None,
    measure: Callable[[str | os.PathLike[str] | bytes, ModelManifest, str, Sequence[int]], Timed] | None = None,
) -> int:
    """Finds the number of threads with which a model trains fastest here; fewer, unless more are clearly faster.

    Args:
        source: the model file, or its bytes.
        manifest: its manifest.
        runtime: the interpreter that will train.
        remembered: a JSON file of earlier answers, for this model's graph, runtime, its version and number of cores;
            made when it is missing and measured again when it is damaged. None: nothing is remembered.
        cores: physical ones that this process may use; by default they are counted.
        measure: by default `time_threads`.

    Returns:
        At least 1; 1 also where nothing can be measured.
    """
    cores = physical_cores() if cores is None else cores
    if cores < 2:
        return 1
    key = f"{manifest.graph_hash} {runtime} {runtime_version(runtime)} {cores}"
    answers = {} if remembered is None else _read(remembered)
    if key in answers:
        return min(int(answers[key]["threads"]), cores)
    try:
        threads, seconds = (measure or time_threads)(source, manifest, runtime, candidates(cores))
    except RuntimeFailure:
        return 1  # loading the model in this process says better what is wrong
    if remembered is not None:
        from edgefl.atomic import write_text  # what it needs would cost every process half a megabyte

        answers[key] = {"threads": threads, "seconds": {str(each): value for each, value in seconds.items()}}
        kept = dict(list(answers.items())[-_KEPT:])
        with contextlib.suppress(StorageError):  # training needs no memory of it
            write_text(remembered, json.dumps(kept, indent=2) + "\n", durable=True)
    return threads


def candidates(cores: int) -> list[int]:
    """Returns the numbers to try: every one up to 4, then its doubles, and all cores."""
    return sorted({*range(1, min(cores, 4) + 1), *(2**power for power in range(cores.bit_length())), cores})


def physical_cores(root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Counts the cores that this process may use; two threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    found = set()
    for cpu in os.sched_getaffinity(0):
        try:
            found.add((root / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except OSError:  # a container may hide it: the processor counts by itself then
            found.add(str(cpu))
    return len(found)


def time_threads(
    source: str | os.PathLike[str] | bytes, manifest: ModelManifest, runtime: str, threads: Sequence[int]
) -> Timed:
    """Times training steps on made-up data, in a child process, so that neither weights nor peak memory feel it.

    Args:
        source: the model file, or its bytes.
        manifest: its manifest.
        runtime: the interpreter.
        threads: numbers to try, the fewest first.

    Raises:
        RuntimeFailure: the interpreter fails.
    """
    import tempfile

    with contextlib.ExitStack() as stack:
        if isinstance(source, bytes):
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".tflite"))
            file.write(source)
            file.flush()
            source = file.name
        script = Path(__file__).with_name("threads_child.py")
        job = {"threads": list(threads), "inputs": _made_up(manifest)}
        try:
            found = json.loads(run_child(script, runtime_module(runtime), source, seconds=_SECONDS, job=job))
        except ChildFailedError as error:
            if error.timed_out:
                return 1, {}
            raise RuntimeFailure(f"{runtime} fails to train on made-up data: {error.stderr.strip()[-200:]}.") from error
        except ValueError as error:
            raise RuntimeFailure(f"{runtime} fails to train on made-up data: it gave no answer.") from error
    return int(found["threads"]), {int(each): float(value) for each, value in found["seconds"].items()}


def _made_up(manifest: ModelManifest) -> list[list[Any]]:
    """Tensor, shape, type, and the numbers between which made-up data lies, of each input of ``train``."""
    classes = {target.name: target.classes for target in manifest.targets}
    ranges = {"sample_weight": (1, 1), "learning_rate": (0, 0), "mu": (0, 0), "seed": (0, 0)}
    return [
        [spec.tensor, spec.shape, spec.dtype, *ranges.get(spec.name, (0, classes.get(spec.name) or 1))]
        for spec in manifest.signatures["train"].inputs
    ]


def _read(file: Path) -> dict[str, Any]:
    """The answers in a file; none if it is missing or damaged."""
    try:
        document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return {
            str(key): answer
            for key, answer in document.items()
            if isinstance(answer["threads"], int) and answer["threads"] >= 1
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return {}
