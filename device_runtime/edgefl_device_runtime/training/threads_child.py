"""Finds the number of threads that trains a model fastest, in a process of its own that leaves nothing behind.

Run by path, with numpy and one interpreter only: ``python threads_child.py MODULE MODEL``, where MODULE holds the class
``Interpreter``. Standard input is JSON: ``threads``, what to try, the fewest first; and ``inputs``, for each input of
``train`` ``[tensor, shape, dtype, low, high]``, between which made-up data lies. Standard output is JSON: ``threads``,
the choice, and ``seconds`` of a step for each number that was timed.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

CLEARLY = 0.9
"""More threads take power, and cores from the rest of a device: they must save a tenth of the time."""
HOPELESS, HOPELESS_AT_FIRST = 3.0, 10.0
"""A step that twice takes so many times as long is not timed any further, nor a first one: threads that wait for each
other (in many small parts on tflite-runtime 2.14, or on a busy machine) can take a hundred times as long."""
TURNS, TURN_SECONDS = 5, 0.05

Step = Callable[[], Any]


def fastest(
    candidates: Iterable[int], load: Callable[[int], Step], clock: Callable[[], float] = time.perf_counter
) -> tuple[int, dict[int, float]]:
    """Times real steps, each candidate in turns with the best of those before it.

    At most two models are loaded at a time, and a machine whose speed drifts slows both alike.

    Args:
        candidates: numbers of threads, the fewest first; they end where one is hopeless.
        load: makes a step with so many threads.
        clock: seconds that only grow.

    Returns:
        The choice, and the last median of a step in seconds for each candidate that was timed.
    """
    first, *others = candidates
    best, step = first, load(first)
    beginning = _time(step, clock)  # an interpreter's first step also prepares what all later ones use
    seconds: dict[int, float] = {}
    for threads in others:
        challenger = load(threads)
        if _time(challenger, clock) > HOPELESS_AT_FIRST * beginning:
            break
        limit = HOPELESS * _time(step, clock)
        if _time(challenger, clock) > limit and _time(challenger, clock) > limit:
            break
        turns = [(_turn(step, clock), _turn(challenger, clock)) for _ in range(TURNS)]
        seconds[best], seconds[threads] = (statistics.median(each) for each in zip(*turns))
        if seconds[threads] < CLEARLY * seconds[best]:
            best, step = threads, challenger
        del challenger
    return best, seconds


def _time(step: Step, clock: Callable[[], float]) -> float:
    start = clock()
    step()
    return clock() - start


def _turn(step: Step, clock: Callable[[], float]) -> float:
    """The median of the steps of one turn, which has at least one."""
    end, times = clock() + TURN_SECONDS, list[float]()
    while not times or clock() < end:
        times.append(_time(step, clock))
    return statistics.median(times)


def main(module: str, model_path: str) -> None:
    """Measures and prints."""
    import numpy as np

    interpreter = importlib.import_module(module).Interpreter
    job = json.load(sys.stdin)
    random = np.random.default_rng(0)
    given = {}
    for tensor, shape, dtype, low, high in job["inputs"]:
        values = low + (high - low) * random.random(shape)
        given[tensor] = (np.floor(values) if np.dtype(dtype).kind in "iu" else values).astype(dtype)

    def load(threads: int) -> Step:
        made = interpreter(model_path=model_path, num_threads=threads)
        made.allocate_tensors()
        numbers = {name: each["index"] for name, each in made.get_signature_runner("train").get_input_details().items()}
        for name, values in given.items():
            made.set_tensor(numbers[name], values)
        return made.invoke  # type: ignore[no-any-return]

    threads, seconds = fastest(job["threads"], load)
    json.dump({"threads": threads, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file: its modules must not be found under other packages' names
    main(*sys.argv[1:])
