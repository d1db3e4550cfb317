"""The course of the example: what `run.py` runs.

Trains the base and converts it, simulates the fleets, compares them by the three protocols of EdgeFlowerTune, and
offers words.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgefl.atomic import write_text
from edgefl.errors import EdgeflError
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from examples.fleet import edgefl, stop_on_signals
from examples.keyboard import report
from examples.keyboard.commands import command
from examples.keyboard.devices import FleetData, load_fleet
from examples.keyboard.files import files
from examples.keyboard.runs import COMPARED, QUICK, RUNS, Size, simulate
from examples.keyboard.suggesting import moments, suggestions
from examples.loading import load_model

Say = Callable[[str], None]


def run(out: Path, size: Size, *, say: Say = print) -> report.Result:
    """Runs the example.

    Args:
        out: folder for the results; files of an earlier run are replaced, others are left alone.
        size: how large everything is.
        say: told one line at a time how it goes.

    Raises:
        EdgeflError: the plays are not installed, or a process or a simulation failed.
    """
    started = time.monotonic()
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    data = load_fleet(size.most, size.unseen)
    say(f"{len(data.roles)} roles of six plays are the devices; on each lie {_range(data)} windows of 48 characters.")

    say("\n1. The base learns from other plays, and becomes files that can train on a device.")
    _prepare(out, size, say)
    base = json.loads((out / "base.json").read_text())
    say(f"  {base['parameters']:,} weights; on a play that it has not seen, in today's spelling:")
    say(f"  {_scores(base['today'])}; in the spelling of 1623: {_scores(base['folio'])}")

    say(f"\n2. The fleet trains it: {size.rounds} rounds of {size.cohort} devices, several times.")
    histories = {}
    for name, each in RUNS.items():
        say(f"  {name}: {each.what}")
        histories[name] = simulate(name, out, data, size, say)

    say("\n3. The merged adapters become an ordinary Keras model, and the keyboard offers words.")
    weights = out / "runs" / "adapters" / "weights.npy"
    merged = ("-o", out / "merged.keras")
    edgefl("export", files(out)["adapters"], "--weights", weights, "--base", out / "base.keras", *merged)
    asked = moments(data.unseen, size.words)
    model = load_model(files(out)["adapters"])
    guesses = {"base": suggestions(model, asked)}
    model.weights = np.load(weights)
    guesses["adapters"] = suggestions(model, asked)

    manifests = {kind: ModelFile.read(path).manifest for kind, path in files(out).items()}
    result = report.Result(
        base=base,
        devices=len(data.roles),
        characters=data.characters,
        update_bytes={kind: 4 * each.layout.size for kind, each in manifests.items()},
        file_bytes={kind: path.stat().st_size for kind, path in files(out).items()},
        trained={kind: each.layout.size + _local(each) for kind, each in manifests.items()},
        histories=histories,
        epochs=size.epochs,
        moments=asked,
        guesses=guesses,
        spelled_today=data.spelled_today,
        protocols=_protocols(out, size),
        seconds=time.monotonic() - started,
    )
    report.write_summary(result, out / "summary.json")
    write_text(out / "tables.txt", report.tables(result) + "\n")
    edgefl("report", *(out / "runs" / name for name in RUNS), "-o", out / "report.html")
    return result


def _prepare(out: Path, size: Size, say: Say) -> None:
    # TensorFlow lives and dies with this child process; no simulated device ever imports it.
    numbers = {"--steps": size.steps, "--width": size.width, "--blocks": size.blocks}
    options = [*itertools.chain.from_iterable(numbers.items()), *([] if size.verify else ["--no-verify"])]
    command(
        sys.executable,
        "-m",
        "examples.keyboard.preparing",
        out,
        *map(str, options),
        on_line=lambda line: say(f"  {line}"),
    )


def _protocols(out: Path, size: Size) -> str:
    """Lets `edgefl compare` say it in its own words."""
    options = ("--target", f"accuracy={size.target}", "--budget-bytes", str(size.budget_bytes))
    folders = [out / "runs" / name for name in COMPARED]
    return "\n".join(command(sys.executable, "-m", "edgefl.cli.main", "compare", *folders, *options))


def _range(data: FleetData) -> str:
    fewest, most = min(data.roles.values()), max(data.roles.values())
    return f"{fewest} to {most}" if fewest < most else str(most)


def _scores(found: Mapping[str, float]) -> str:
    return f"loss {found['loss']:.3f}, {found['accuracy']:.1%} of characters right"


def _local(manifest: ModelManifest) -> int:
    return sum(math.prod(each.shape) for each in manifest.local_parameters)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A small language model that a fleet of roles teaches to spell.")
    parser.add_argument("--out", type=Path, default=Path("keyboard"), help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="everything tiny: to see that it runs, not what comes out")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)  # also into a pipe, line by line

    try:
        with stop_on_signals():
            result = run(arguments.out, QUICK if arguments.quick else Size(), say=say)
    except EdgeflError as error:
        print(f"keyboard: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("keyboard: stopped, and all its processes with it", file=sys.stderr)
        sys.exit(130)
    say(f"\n{report.tables(result)}")
    say(f"\nDone in {result.seconds:.0f} s. In {arguments.out}/: tables.txt and summary.json; report.html, a page of")
    say("the simulations; merged.keras, the fleet's model; base.keras, three .tflite files, and runs/.")
