"""Folding the updates of a round: gigabytes of updates a second, and memory, beside what the memory itself can do.

100 updates of 10 million float32, from memory and from the files in which a server keeps them. Contenders have a
process each, one after the other: a triad as in STREAM (`a = b + s c` of float64, in pieces that numpy reads and writes
once), numpy that adds up one update after the other, edgefl's fold with FedAvg and FedAdam, the same after a restart
(every message is hashed and checked once), a trimmed mean of 8 of the updates, and Flower's aggregation of what lies in
memory (``make bench-peers``). Seconds are those of the processor, so that of one core; memory is what a fold takes
beyond what it is given.

    python benchmarks/aggregation.py --json bench/aggregation.json
    python benchmarks/aggregation.py --quick
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

FLOWER = [Path(__file__).parent.parent / ".venvs" / name / "bin" / "python" for name in ("flower", "flower-pytorch")]
MUST = {"FedAvg, memory": 4.0, "FedAvg, files": 1.5}
"""Gigabytes a second on one core."""
MOST_VECTORS = {"FedAvg, memory": 2.0, "FedAvg, files": 2.0, "FedAdam, files": 4.0}
"""Float64 vectors beside one update."""
FEW = 8
"""Updates of the trimmed mean, whose time grows with their number."""


class Watch:
    """Seconds of the processor and memory of what happens inside.

    Attributes:
        row: the figures, once it is over.
    """

    def __init__(self, gigabytes: float) -> None:
        self.gigabytes = gigabytes
        self.row: dict[str, float] = {}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Measures."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, began, processor = _megabytes("VmRSS"), time.perf_counter(), _processor()
        yield
        used, took = _processor() - processor, time.perf_counter() - began
        self.row = {
            "gb_per_second": self.gigabytes / used,
            "wall_gb_per_second": self.gigabytes / took,
            "peak_mb": _megabytes("VmHWM") - before,
        }


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def in_memory(updates: int, elements: int) -> list[Any]:
    base = np.random.default_rng(1).normal(size=elements).astype(np.float32)
    return [base * np.float32(1 + index / updates) for index in range(updates)]


def triad(updates: int, elements: int, folder: Path) -> dict[str, float]:
    a, b, c = (np.ones(elements) for _ in range(3))
    watch = Watch(3 * 8 * elements * 5 / 1e9)
    with watch():
        for _ in range(5):
            for start in range(0, elements, 1 << 15):
                part = slice(start, start + (1 << 15))
                np.multiply(c[part], 3.0, out=a[part])
                a[part] += b[part]
    return watch.row


def streaming(updates: int, elements: int, folder: Path) -> dict[str, float]:
    vectors, total = in_memory(updates, elements), np.zeros(elements)
    watch = Watch(4 * updates * elements / 1e9)
    with watch():
        for index, vector in enumerate(vectors):
            total += vector * np.float64(10 + index)
        total /= 100
    return watch.row


def _fold(strategy: str, contributions: list[Any], elements: int, count: int, **options: Any) -> dict[str, float]:
    from edgefl_server.aggregation import STRATEGIES, Believed, Cohort, ModelLimits, fold
    from edgefl_server.aggregation.hyperparameters import build

    chosen = build(STRATEGIES.get(strategy), options)
    before = chosen.init(np.zeros(elements, np.float32), elements)
    watch = Watch(4 * count * elements / 1e9)
    with watch():
        folded = fold(chosen, before, contributions, Believed(10**9, 10.0, ModelLimits(), []), Cohort(count))
        assert folded.is_finite
    return watch.row


def from_memory(strategy: str) -> Callable[[int, int, Path], dict[str, float]]:
    def run(updates: int, elements: int, folder: Path) -> dict[str, float]:
        from edgefl_server.aggregation import Update, Updates

        made = [
            Update(f"t{index:06d}", 10 + index, {"delta": vector})
            for index, vector in enumerate(in_memory(updates, elements))
        ]
        return _fold(strategy, list(Updates.of(made).contributions), elements, updates)

    return run


def from_files(
    strategy: str, *, known: bool = True, few: int | None = None, **options: Any
) -> Callable[[int, int, Path], dict[str, float]]:
    def run(updates: int, elements: int, folder: Path) -> dict[str, float]:
        from edgefl_server.aggregation import Contribution, Expectation, Update, decode_outcome, validate
        from edgefl_server.storage.blobs import FolderBlobs
        from edgefl_server.storage.placements import Located, Placements

        store = FolderBlobs(folder / "outcomes")
        placements = Placements(store)
        digests = json.loads((folder / "digests.json").read_text())[: few or updates]

        def read(task_id: str, digest: str) -> Update:
            expected = Expectation(task_id, "0" * 64, "0" * 64, elements, 0)
            placed = placements.get(digest, expected)
            if placed is not None:
                return placed
            data = store.get(digest)
            outcome = decode_outcome(data)
            update = validate(outcome, expected)
            assert update is not None
            return placements.note(digest, expected, Located.of(data, outcome, update)) or update

        contributions = []
        for index, digest in enumerate(digests):
            task_id = f"t{index:06d}"
            if known:  # as when it was accepted
                read(task_id, digest)
            contributions.append(Contribution(task_id, 10 + index, lambda t=task_id, d=digest: read(t, d)))
        return _fold(strategy, contributions, elements, len(digests), **options)

    return run


def with_flower(updates: int, elements: int, folder: Path) -> dict[str, float]:
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.common import Array
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    records = [
        RecordDict({"w": ArrayRecord({"0": Array(vector)}), "m": MetricRecord({"num-examples": 10 + index})})
        for index, vector in enumerate(in_memory(updates, elements))
    ]
    watch = Watch(4 * updates * elements / 1e9)
    with watch():
        aggregate_arrayrecords(records, "num-examples")
    return watch.row


CONTENDERS: dict[str, Callable[[int, int, Path], dict[str, float]]] = {
    "triad": triad,
    "numpy, streaming": streaming,
    "Flower": with_flower,
    "FedAvg, memory": from_memory("fedavg"),
    "FedAdam, memory": from_memory("fedadam"),
    "FedAvg, files": from_files("fedavg"),
    "FedAdam, files": from_files("fedadam"),
    "FedAvg, files, after a restart": from_files("fedavg", known=False),
    "trimmed mean, files": from_files("fedavg", few=FEW, rule="trimmed-mean", byzantine=2),
}


def write_files(updates: int, elements: int, folder: Path) -> None:
    """Writes the messages of all devices where a server keeps them."""
    from edgefl.wire.messages import Outcome, Section
    from edgefl_server.storage.blobs import FolderBlobs

    store, digests = FolderBlobs(folder / "outcomes"), []
    base = np.random.default_rng(1).normal(size=elements).astype(np.float32)
    for index in range(updates):
        section = Section.of("delta", base * np.float32(1 + index / updates), "float32")
        outcome = Outcome(f"t{index:06d}", "0" * 64, "0" * 64, num_examples=10 + index, sections=(section,))
        digests.append(store.put(outcome.encode()))
    (folder / "digests.json").write_text(json.dumps(digests))


def python_of(name: str) -> Path | None:
    """The path of the Python that a contender needs; None: it is not there."""
    return Path(sys.executable) if name != "Flower" else next((each for each in FLOWER if each.exists()), None)


def main() -> None:
    """Runs the contenders and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="20 updates of a million")
    parser.add_argument("--turns", type=int, default=1, help="the best of so many counts")
    parser.add_argument("--folder", type=Path, help="where the messages lie; the system's for temporary files")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.updates, arguments.elements = 20, 1_000_000
    sizes = arguments.updates, arguments.elements
    if arguments.contender:
        print(json.dumps(CONTENDERS[arguments.contender](*sizes, arguments.folder)))
        return
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_files(*sizes, Path(folder))
        for name in CONTENDERS:
            python = python_of(name)
            if python is None:
                print("Flower is not there. `make bench-peers` installs it.")
                continue
            command = [python, __file__, "--contender", name, "--folder", folder]
            command += ["--updates", str(sizes[0]), "--elements", str(sizes[1])]
            # A BLAS with threads would use more than one core; a peer does not see edgefl.
            path = "" if name == "Flower" else os.environ.get("PYTHONPATH", "")
            found = []
            for _ in range(arguments.turns):
                done = subprocess.run(
                    command,
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                )
                found.append(json.loads(done.stdout.splitlines()[-1]))
            table[name] = max(found, key=lambda each: float(each["gb_per_second"]))
    failed = show(table, sizes[1])
    for line in failed:
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps({"sizes": sizes, "table": table}, indent=2) + "\n")


def show(table: dict[str, dict[str, float]], elements: int) -> list[str]:
    """Prints the table; what is not as it must be."""
    vector, failed = 8 * elements / 2**20, []
    print(f"{'':32}{'GB/s of one core':>18}{'GB/s':>8}{'peak MB':>9}{'float64 vectors':>17}")
    for name, row in table.items():
        vectors = row["peak_mb"] / vector
        print(
            f"{name:32}{row['gb_per_second']:18.2f}{row['wall_gb_per_second']:8.2f}{row['peak_mb']:9.0f}{vectors:17.2f}"
        )
        if row["gb_per_second"] < MUST.get(name, 0):
            failed.append(f"{name} must fold {MUST[name]:g} GB/s, and folds {row['gb_per_second']:.2f}")
        if vectors > MOST_VECTORS.get(name, float("inf")) + 0.5:
            failed.append(f"{name} must take {MOST_VECTORS[name]:g} vectors and an update, and takes {vectors:.1f}")
    return failed


if __name__ == "__main__":
    main()
