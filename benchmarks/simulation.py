"""A fleet on one machine: devices trained per second and memory, beside what others emulate fleets with.

McMahan's 2NN and CNN on Fashion-MNIST: 100 devices of 600 images (IID), 10 a round, one epoch of batches of 10. The
same rows lie on the same devices, and all begin with the same weights. Contenders take turns, each in an environment
(``make bench-peers``) and a process of its own; the first round of each, in which processes start and graphs are
compiled, is not timed, and devices a second are those of the round that took the median time. Memory is the PSS of all
processes together, while they train and at its peak. Then edgefl's own simulation once more, with 1,000 and with
100,000 registered devices. On a busy machine only ratios mean something.

    python benchmarks/simulation.py --json bench/simulation.json
    python benchmarks/simulation.py --quick
    python benchmarks/simulation.py --models 2nn --contenders edgefl,FedJAX --turns 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fleets import scale
from fleets.contenders import CONTENDERS, OWN, YARDSTICK, run
from fleets.job import EVALUATED, Job
from fleets.preparing import prepare

MODELS = {"2nn": "2NN", "fedavg_cnn": "FedAvg CNN"}
MUST = {"2nn": 1.8, "fedavg_cnn": 3.0}
"""Times as many devices a second as FedJAX."""
MOST_PSS_MB = 200
"""What the whole tree of edgefl's simulation of the 2NN may take."""
ACCURACY_WITHIN = 0.02

Row = dict[str, Any]


def measure(model: str, names: Iterable[str], folder: Path, arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """Lets contenders take turns."""
    place = prepare(model, folder)
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for turn in range(arguments.turns):
        for name, found in rows.items():
            rounds = EVALUATED + 2 if arguments.quick else CONTENDERS[name].rounds[model]
            print(f"  {MODELS[model]}, turn {turn + 1}: {name} …", file=sys.stderr, flush=True)
            found.append(run(name, Job(model, str(place), rounds, arguments.workers, 1), arguments.under))
    return rows


def show(model: str, table: dict[str, Row]) -> list[str]:
    """Prints a model's table; what is not as it must be."""
    columns = f"{'devices/s':>10}{'edgefl is':>11}{'CPU ms each':>13}{'PSS MB':>8}{'peak':>6}{'accuracy':>10}"
    print(f"\n{MODELS[model]:16}{columns}")
    ours = table.get(OWN)
    failed = []
    for name, row in table.items():
        ratio = ours["devices_per_second"] / row["devices_per_second"] if ours else 0.0
        print(
            f"{name:16}{row['devices_per_second']:10.2f}{ratio:9.2f} ×{row['cpu_ms_a_device']:13.1f}"
            f"{row['training_pss_mb']:8.0f}{row['peak_pss_mb']:6.0f}{row['accuracy']:10.3f}"
        )
        if ours is None or name == OWN:
            continue
        must = MUST[model] if name == YARDSTICK else 1.0
        if ratio < must:
            failed.append(f"{MODELS[model]}: edgefl must be {must:g} × as fast as {name}, and is {ratio:.2f} ×")
        if row["training_pss_mb"] < ours["training_pss_mb"]:
            failed.append(f"{MODELS[model]}: {name} trains in less memory")
    accuracies = [row["accuracy"] for row in table.values()]
    if max(accuracies) - min(accuracies) > ACCURACY_WITHIN:
        failed.append(f"{MODELS[model]}: accuracies after {EVALUATED} rounds are not within two points")
    if model == "2nn" and ours and ours["training_pss_mb"] > MOST_PSS_MB:
        failed.append(f"{MODELS[model]}: edgefl trains in more than {MOST_PSS_MB} MB")
    return failed


def show_scale(found: dict[str, Any]) -> list[str]:
    """Prints what fleets of two sizes cost; what is not as it must be."""
    print(f"\n{'registered':>16}{'ms a round':>12}{'CPU ms':>9}{'PSS MB':>8}")
    for devices, row in found["sizes"].items():
        cells = f"{row['ms_a_round']:12.0f}{row['cpu_ms_a_round']:9.0f}{row['training_pss_mb']:8.0f}"
        print(f"{devices:16,}{cells}")
    ratios = found["ratios"]
    print(f"{'ratio':>16}{ratios['ms_a_round']:12.2f}{ratios['cpu_ms_a_round']:9.2f}{ratios['training_pss_mb']:8.2f}")
    return [f"Scale: {name} must grow to {scale.MOST:g} ×" for name, ratio in ratios.items() if ratio > scale.MOST]


def main() -> None:
    """Runs the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--models", default=",".join(MODELS), help="which (default: %(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), metavar="NAMES", help="who (default: all)")
    parser.add_argument("--turns", type=int, default=3, help="of each contender")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument("--quick", action="store_true", help="one short turn")
    parser.add_argument("--folder", type=Path, help="where models and data are kept for the next run")
    parser.add_argument("--no-scale", action="store_true", help="without the fleets of 1,000 and 100,000")
    parser.add_argument("--under", default="", help="a command that runs each turn, such as 'taskset -c 0,1'")
    arguments = parser.parse_args()
    arguments.turns = 1 if arguments.quick else arguments.turns
    # A name with a comma is also meant by what stands before it.
    wanted = [name for name in CONTENDERS if {name, name.partition(",")[0]} & {*arguments.contenders.split(",")}]
    there = [name for name in wanted if CONTENDERS[name].is_there]
    if missing := [name for name in wanted if name not in there]:
        print(f"Not there: {'; '.join(missing)}. `make bench-peers` installs them.")
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"This machine is busy (load {load:.1f}): only the ratios mean something.")
    document: dict[str, Any] = {"load_before": load}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        for model in arguments.models.split(","):
            rows = measure(model, there, arguments.folder or Path(temporary), arguments)
            table = {
                name: {column: statistics.median(row[column] for row in found) for column in found[0]}
                for name, found in rows.items()
            }
            failed += show(model, table)
            document[model] = {"table": table, "turns": rows}
        if not arguments.no_scale:
            document["scale"] = scale.compare((arguments.folder or Path(temporary)) / "scale")
            failed += show_scale(document["scale"])
    for line in failed:
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
