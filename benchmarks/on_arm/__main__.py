"""Counts instructions on emulated Raspberry Pis.

    python -m on_arm setup                                    # once: about 400 MB below arm/, half a minute
    python -m on_arm forms [--only conv,dense] [--json FILE]  # the converter's forms beside others
    python -m on_arm models FOLDER[,FOLDER]... [--functions]  # whole steps; a FOLDER as local_steps.keras_models leaves it

To be run in benchmarks/. Counts do not depend on the machine, its load or the time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.model_file import ModelFile
from local_steps.cases import load_batch
from on_arm.counts import short
from on_arm.emulating import Run, run
from on_arm.rooting import BOARDS, HERE, set_up
from on_arm.table import ratio_rows, render

DIFFERENT = 1e-4
"""Relative to the largest value: forms that differ by more do not compute the same."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses and runs one of the three."""
    parser = argparse.ArgumentParser(prog="python -m on_arm", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("setup", "forms", "models"))
    parser.add_argument("folders", nargs="*", type=Path, help="of models; the first is what the others are compared with")
    parser.add_argument("--root", type=Path, default=HERE.parent.parent / "arm", help="where the boards lie")
    parser.add_argument("--boards", default="aarch64", help=f"of {', '.join(BOARDS)}")
    parser.add_argument("--runtimes", default="ai-edge-litert,tflite-runtime")
    parser.add_argument("--only", default="", help="groups of forms, by their keys")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="also the N dearest functions")
    parser.add_argument("--json", type=Path, help="leaves the figures there")
    given = parser.parse_args(arguments)
    boards = given.boards.split(",")
    if unknown := set(boards) - set(BOARDS):
        parser.error(f"unknown board {', '.join(unknown)}; there are {', '.join(BOARDS)}")
    for board in boards:
        set_up(given.root, board)
    places = [
        (board, runtime) for board in boards for runtime in BOARDS[board].runtimes if runtime in given.runtimes.split(",")
    ]
    if given.what == "setup":
        return
    if given.what == "models" and not given.folders:
        parser.error("models: name at least one folder with model.tflite, x.npy and y.npy")
    rows = []
    source = _forms(given, places) if given.what == "forms" else _models(given, places)
    for row, found in source:
        print(f"{row['group']} | {row['name']} | {row['where']}: {row['instructions']:,.0f}", flush=True)
        for name, cost in list(found.functions.items())[: given.functions]:
            share = cost.instructions / found.cost.instructions
            print(f"    {share:6.1%} {cost.instructions:14,.0f} {cost.memory:14,.0f}  {short(name)}")
        rows.append(row)
    base = "naive" if given.what == "forms" else str(given.folders[0])
    rows = ratio_rows(rows, base)
    print("\nMillions of instructions a step (of these, loads and stores), and the ratio to the first form:\n")
    print(render(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def _row(group: str, name: str, place: tuple[str, str], found: Run) -> dict[str, Any]:
    cost = {"instructions": found.cost.instructions, "memory": found.cost.memory}
    return {"group": group, "name": name, "where": f"{place[1]}, {place[0]}", **cost, "losses": list(found.losses)}


def _forms(given: Any, places: Sequence[tuple[str, str]]) -> Iterator[tuple[dict[str, Any], Run]]:
    # TensorFlow takes seconds to import, and models do not need it.
    from on_arm.building import SIGNATURE, build, input_names
    from on_arm.forms import GROUPS

    chosen = {key: GROUPS[key] for key in (given.only.split(",") if given.only else GROUPS)}
    forms = [(key, group, form) for key, group in chosen.items() for form in group.forms]
    files = [(build(group, form), dict(zip(input_names(group), group.arrays()))) for _, group, form in forms]
    expected: dict[str, Any] = {}
    for place in places:
        results = run(given.root, files, board=place[0], runtime=place[1], signature=SIGNATURE)
        for (key, group, form), found in zip(forms, results):
            result = found.outputs["result"]
            first = expected.setdefault(key, result)
            error = float(np.abs(result - first).max() / np.abs(first).max())
            if not error <= DIFFERENT:
                raise SystemExit(f"{key}, {form.name}, {place}: differs from the first form by {error:.1e}.")
            yield _row(group.title, form.name, place, found), found


def _models(given: Any, places: Sequence[tuple[str, str]]) -> Iterator[tuple[dict[str, Any], Run]]:
    files = [((folder / "model.tflite").read_bytes(), _batch(folder)) for folder in given.folders]
    for place in places:
        for folder, found in zip(given.folders, run(given.root, files, board=place[0], runtime=place[1])):
            yield _row("a training step", str(folder), place, found), found


def _batch(folder: Path) -> dict[str, Any]:
    """What the signature needs besides: every row counts once, and random numbers are always the same."""
    manifest = ModelFile.read(folder / "model.tflite").manifest
    x, y = load_batch(folder)
    others = {
        "y": y,
        "sample_weight": np.ones(len(x), np.float32),
        "learning_rate": np.full(1, manifest.learning_rate, np.float32),
        "seed": np.zeros(1, np.int32),
    }
    return {spec.tensor: others.get(spec.name, x) for spec in manifest.signatures["train"].inputs}


if __name__ == "__main__":
    main()
