"""One local training step of edgefl on both runtimes beside ONNX Runtime's, PyTorch's and TensorFlow's.

All contenders train the same model from the same weights on the same batch by plain SGD, which is checked before they
are timed; see interleaving.py for how. docs/performance.md says what the columns mean.

    python benchmarks/local_step.py --json bench/local_step.json
    python benchmarks/local_step.py --quick --models 2nn,lstm --contenders edgefl,PyTorch
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from local_steps.bars import judge
from local_steps.cases import CASES
from local_steps.contending import CONTENDERS, HERE, PEERS_PYTHON, Contender
from local_steps.running import Effort, measure_group, prepare
from local_steps.table import lines

FULL = Effort(slices=5, seconds=0.5, starts=3)
QUICK = Effort(slices=3, seconds=0.2, starts=1)


def models(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(f"there is no model {', '.join(unknown)}; there are {', '.join(CASES)}")
    return names


def contenders(text: str) -> tuple[Contender, ...]:
    """Those whose name has one of the parts in it."""
    parts = text.split(",")
    if unknown := [part for part in parts if not any(part in each.name for each in CONTENDERS)]:
        known = ", ".join(each.name for each in CONTENDERS)
        raise argparse.ArgumentTypeError(f"no contender has {', '.join(unknown)} in its name; there are {known}")
    return tuple(each for each in CONTENDERS if any(part in each.name for part in parts))


def numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write rows and judgements")
    parser.add_argument("--models", type=models, default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--contenders", type=contenders, default=CONTENDERS, help="parts of their names")
    parser.add_argument("--threads", type=numbers, help="numbers of threads; by default 1,2, and 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="smallest batch, short turns, one start: a few minutes")
    return parser.parse_args()


def main() -> None:
    """Runs the table."""
    arguments = parse()
    effort = QUICK if arguments.quick else FULL
    peers = PEERS_PYTHON.exists() and any(each.elsewhere for each in arguments.contenders)
    if not peers and any(each.elsewhere for each in arguments.contenders):
        print("PyTorch and ONNX Runtime are left out: there is no .venv-peers. `make bench-peers` makes it.")
    # As in an installed package: sources that are compiled at every start cost memory and time.
    for folder in ("edgefl", "device_runtime", "benchmarks"):
        compileall.compile_dir(HERE.parent / folder, quiet=1)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(
            f"This machine is busy (load {load:.1f}): figures of several threads, which wait for each other, mislead."
        )
    rows: list[dict[str, Any]] = []
    for name in arguments.models:
        for size in CASES[name].batches[: 1 if arguments.quick else None]:
            with tempfile.TemporaryDirectory() as folder:
                prepare(name, size, Path(folder), peers=peers)
                for threads in arguments.threads or ([1] if arguments.quick else [1, 2]):
                    group = measure_group(name, size, threads, Path(folder), arguments.contenders, effort)
                    rows += group
                    print("\n".join(lines(group)), flush=True)
    judgements = judge(rows)
    if judgements:
        print("\nBars", *judgements, sep="\n    ")
    if arguments.json:
        document = {"load_before": load, "rows": rows, "bars": [vars(each) for each in judgements]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    if failed := [row for row in rows if (row["why_not"] or "").startswith("FAILED")]:
        raise SystemExit(f"{len(failed)} contenders failed; see the table.")


if __name__ == "__main__":
    main()
