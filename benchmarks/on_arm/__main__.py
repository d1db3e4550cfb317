"""Counts instructions on emulated Raspberry Pis.

    python -m on_arm setup                      # once: about 400 MB below arm/, half a minute
    python -m on_arm forms [--only conv,dense]  # the converter's forms beside others
    python -m on_arm models FOLDER...           # whole steps; a FOLDER as local_steps.keras_models leaves it

To be run in benchmarks/. Counts do not depend on the machine, its load or the time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.model_file import ModelFile
from local_steps.cases import load_batch
from on_arm.counts import short
from on_arm.emulating import Run, losses_here, run
from on_arm.rooting import BOARDS, HERE, RUNTIMES, set_up
from on_arm.table import ratio_rows, render

DIFFERENT = 1e-4
"""Relative to the largest value: forms that differ by more do not compute the same."""

_COLUMNS = "Millions of instructions a step (of these, loads and stores), and the ratio to the first:"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses and runs one of the three."""
    parser = argparse.ArgumentParser(prog="python -m on_arm", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("setup", "forms", "models"))
    parser.add_argument("folders", nargs="*", type=Path, help="of models; the others are compared with the first")
    parser.add_argument("--root", type=Path, default=HERE.parent.parent / "arm", help="where the boards lie")
    parser.add_argument("--boards", type=_several(BOARDS), default=["aarch64"], help=f"of {', '.join(BOARDS)}")
    parser.add_argument("--runtimes", type=_several(RUNTIMES), default=RUNTIMES, help=f"of {', '.join(RUNTIMES)}")
    parser.add_argument("--only", default="", help="groups of forms, by their keys")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="also the N dearest functions")
    parser.add_argument("--json", type=Path, help="leaves the figures there")
    given = parser.parse_intermixed_args(arguments)
    if given.what == "models" and not given.folders:
        parser.error("models: name at least one folder with model.tflite, x.npy and y.npy")
    if missing := [str(folder) for folder in given.folders if not (folder / "model.tflite").exists()]:
        parser.error(f"no model.tflite in {', '.join(missing)}; python -m local_steps.keras_models makes one")
    for board in given.boards:
        set_up(given.root, board)
    if given.what == "setup":
        return
    places = [(board, name) for board in given.boards for name in BOARDS[board].runtimes if name in given.runtimes]
    rows = []
    source = _forms(given, places) if given.what == "forms" else _models(given, places)
    for row, found in source:
        print(f"{row['group']} | {row['name']} | {row['where']}: {row['instructions']:,.0f}", flush=True)
        for name, cost in list(found.functions.items())[: given.functions]:
            share = cost.instructions / found.cost.instructions
            print(f"    {share:6.1%} {cost.instructions:14,.0f} {cost.memory:14,.0f}  {short(name)}")
        rows.append(row)
    rows = ratio_rows(rows, rows[0]["name"]) if rows else []
    print(f"\n{_COLUMNS}\n\n{render(rows)}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def _several(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _row(group: str, name: str, place: tuple[str, str], found: Run) -> dict[str, Any]:
    cost = {"instructions": found.cost.instructions, "memory": found.cost.memory}
    return {"group": group, "name": name, "where": f"{place[1]}, {place[0]}", **cost, "losses": list(found.losses)}


def _forms(given: Any, places: Sequence[tuple[str, str]]) -> Iterator[tuple[dict[str, Any], Run]]:
    # TensorFlow takes seconds to import, and models do not need it.
    from on_arm.building import SIGNATURE, build, input_names
    from on_arm.forms import GROUPS

    keys = given.only.split(",") if given.only else list(GROUPS)
    if unknown := [key for key in keys if key not in GROUPS]:
        raise SystemExit(f"There is no group {', '.join(unknown)}; there are {', '.join(GROUPS)}.")
    # A process for each group: the memory of a 32-bit one does not do for all.
    for key in keys:
        group, first = GROUPS[key], None
        inputs = dict(zip(input_names(group), group.arrays()))
        files = [(build(group, form), inputs) for form in group.forms]
        for place in places:
            results = run(given.root, files, board=place[0], runtime=place[1], signature=SIGNATURE)
            for form, found in zip(group.forms, results):
                result = found.outputs["result"]
                first = result if first is None else first
                error = float(np.abs(result - first).max() / np.abs(first).max())
                if not error <= DIFFERENT:
                    raise SystemExit(f"{key}, {form.name}, {place}: differs from the first form by {error:.1e}.")
                yield _row(group.title, form.name, place, found), found


def _models(given: Any, places: Sequence[tuple[str, str]]) -> Iterator[tuple[dict[str, Any], Run]]:
    files = [((folder / "model.tflite").read_bytes(), _batch(folder)) for folder in given.folders]
    for place in places:
        here = losses_here(files, runtime=place[1])
        for folder, found, own in zip(given.folders, run(given.root, files, board=place[0], runtime=place[1]), here):
            apart = float(np.max(np.abs(np.divide(found.losses, own) - 1.0)))
            print(f"{folder} on {place[1]}, {place[0]}: losses within {apart:.1e} of those on this machine")
            yield {**_row("a training step", str(folder), place, found), "losses_apart": apart}, found


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
