"""What a task of a large cohort costs the server: n tasks are handed out and n outcomes accepted, in storage alone.

    python benchmarks/assignments.py                  # 100 tasks, and 5,000
    python benchmarks/assignments.py --tasks 2000

No network and no web framework: the functions that answer devices are called one after the other. Time is the
processor's, as waiting for the disk says nothing about the number of tasks. The limit: each task of the large cohort
costs at most 1.5 times as much as each of the small ones, which take turns with it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from edgefl.wire.messages import Outcome, Section, Task
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import DeviceRow, ServerState, accept_outcome, create_run, next_task, stop_run
from edgefl_server.storage.tables import PopulationRow, table

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from model_files import make_model_file

SMALL, LARGE = 100, 5000
LARGEST_RATIO = 1.5


def add_devices(state: ServerState, population: str, count: int) -> list[DeviceRow]:
    """Enrols devices, all at once: enrolling is not what is measured."""
    rows = [
        {
            "device": f"{population[-8:]:0>8}{index:024x}",
            "population": population,
            "secret_hash": "0" * 64,
            "capabilities": {},
            "created_at": 0.0,
        }
        for index in range(count)
    ]
    with state.database.write() as session:
        session.execute(insert(table(PopulationRow)), {"population": population, "devices": count})
        session.execute(insert(table(DeviceRow)), rows)
    return [DeviceRow(**row) for row in rows]


def outcome_of(task: Task) -> bytes:
    """A good outcome of the small model of `make_model_file`."""
    sections = (
        Section.of("delta", np.full(16, 0.01, np.float32), task.codec_of("delta")),
        Section.of("statistics", np.zeros(4, np.float32), task.codec_of("statistics")),
    )
    done = Outcome(task.task_id, task.base_weights_hash, task.layout_hash, num_examples=8, sections=sections)
    return done.encode()


def cohort(state: ServerState, model: bytes, name: str, tasks: int) -> tuple[float, float]:
    """One cohort from its first task to its last outcome but one.

    Returns:
        Milliseconds of the processor for handing out a task, and for accepting an outcome.
    """
    devices = add_devices(state, name, tasks)
    run = create_run(state, model, name, RunSettings(rounds=1, target=tasks + 1, lease_seconds=1e6, seed=1))
    begin, given = time.process_time(), []
    for device in devices:
        task = next_task(state, device)
        assert task is not None
        given.append(task)
    handed_out = time.process_time() - begin
    messages = [(device.device, task.task_id, outcome_of(task)) for device, task in zip(devices, given, strict=True)]
    begin = time.process_time()
    for who, task_id, message in messages:
        accept_outcome(state, who, task_id, message)
    accepted = time.process_time() - begin
    stop_run(state, run)
    return handed_out / tasks * 1e3, accepted / tasks * 1e3


def measure(folder: Path, tasks: int) -> list[dict[str, float]]:
    """A row for the small cohorts, before and after the large one, and a row for that."""
    state, model = ServerState(folder / "state"), make_model_file()
    try:
        cohort(state, model, "warm", SMALL)
        before = [cohort(state, model, f"small-{turn}", SMALL) for turn in range(3)]
        large = cohort(state, model, "large", tasks)
        after = [cohort(state, model, f"small-{turn}", SMALL) for turn in range(3, 6)]
    finally:
        state.close()
    small = np.median(np.array(before + after), axis=0)
    return [
        {"tasks": SMALL, "hand_out_ms": float(small[0]), "accept_ms": float(small[1]), "ratio": 1.0},
        {
            "tasks": tasks,
            "hand_out_ms": large[0],
            "accept_ms": large[1],
            "ratio": float(max(large[0] / small[0], large[1] / small[1])),
        },
    ]


def main() -> None:
    """Prints the table; exit code 1 where the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=LARGE, help="of the large cohort")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory() as name:
        table_rows = measure(Path(name), arguments.tasks)
    for row in table_rows:
        print(
            f"{row['tasks']:.0f} tasks: {row['hand_out_ms']:.2f} ms to hand one out, "
            f"{row['accept_ms']:.2f} ms to accept one"
        )
    ratio = table_rows[-1]["ratio"]
    print(f"large / small: {ratio:.2f} (limit {LARGEST_RATIO})")
    if arguments.json:
        arguments.json.write_text(json.dumps(table_rows, indent=2) + "\n")
    if ratio > LARGEST_RATIO:
        raise SystemExit("The limit is passed.")


if __name__ == "__main__":
    main()
