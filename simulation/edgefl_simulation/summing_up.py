"""`edgefl.federated_statistics`: what a run of the kind statistics finds, of a data set that is divided among devices.

Each emulated device does the task that a server would send it, and what comes of that is checked and added up as there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgefl.atomic import write_text
from edgefl.hashing import sha256, weights_hash
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES
from edgefl_server.aggregation import (
    Assignment,
    Blob,
    Contribution,
    Expectation,
    ModelLimits,
    RunSettings,
    SettingError,
    StrategyState,
    TaskSource,
    Updates,
    demand_for,
    fold_statistics,
    in_order,
    task_for,
)
from edgefl_server.aggregation.kinds import SHOWN_FROM
from edgefl_simulation.argument_kinds import check_kinds
from edgefl_simulation.data import OWNER, load_data
from edgefl_simulation.engines import InProcess, Job, Setup
from edgefl_simulation.engines.base import WEIGHTS
from edgefl_simulation.fleet import Fleet
from edgefl_simulation.model_sources import Wanted, model_file
from edgefl_simulation.partitioning import Partitioner
from edgefl_simulation.preparing import Division, prepare_fleet

__all__ = ["federated_statistics"]

_ONE_AT_A_TIME = 1.0
"""Seconds that a task may take; nobody looks at a clock here."""


def federated_statistics(
    model: Any,
    data: Any,
    *,
    devices: int = 0,
    partition: str | Partitioner = "iid",
    seed: int = 1,
    held_out: float = 0.1,
    label: str = "",
    owner: str = OWNER,
    feature_columns: Sequence[str] = (),
    target_column: str = "",
    minimum_examples: int = MINIMUM_EXAMPLES,
    shown_from: int = SHOWN_FROM,
    runtime: str = "auto",
    out: str | Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Sums up the data of a fleet by the very code that real devices and servers run: nobody's rows are put together.

        statistics = edgefl.federated_statistics(model, "digits", devices=20, out="statistics.json")
        edgefl.convert(model, "model.tflite", normalization="statistics.json")

    Args:
        model: as `edgefl.simulate` takes it; it says what a row is, and nothing is trained.
        data: as `edgefl.simulate` takes it.
        devices: how many; 0: as many as the partition itself says.
        partition: which rows fall on which device.
        seed: of every choice; that of a simulation gives its devices.
        held_out: the share of rows that no device gets, where the data set has no such rows itself.
        label: the array that a partition by class goes by; empty: the model's target.
        owner: the array, or column, that says whose each row is.
        feature_columns: the columns, or arrays, that are the input; none: all but the target.
        target_column: the column, or array, that is the target; empty: as `load_data` finds it.
        minimum_examples: a device with fewer sums up nothing.
        shown_from: statistics are of at least so many devices.
        runtime: the interpreter, as `edgefl.TrainableModel` takes it.
        out: a JSON file for `edgefl.convert`; None: none.
        tell: called with one line when something takes long.

    Returns:
        What ``edgefl run statistics`` shows and writes: ``rows``, ``devices``, ``inputs`` and ``arrays``, see
        `fold_statistics`.

    Raises:
        DataError: the data cannot be read, or does not fit the model.
        InvalidSettingError: it cannot be divided so, or too few devices sum up their data.
        EdgeflError: what the conversion or the model raises.
    """
    check_kinds(federated_statistics, locals())
    if minimum_examples < 1:
        raise SettingError(f"{{minimum_examples}} expects a whole number from 1, got {minimum_examples}.")
    # A server is told how many to wait for; here all are asked, and some may decline.
    settings = RunSettings.of(kind="statistics", rounds=1, target=max(1, shown_from), shown_from=shown_from, seed=seed)
    content = model_file(model, Wanted(), tell)
    file = ModelFile(content)
    file.verify()
    found = load_data(data, owner, features=feature_columns, target=target_column)
    division = Division(partition, devices, held_out, 0.0, label, seed)
    with tempfile.TemporaryDirectory(prefix="edgefl-") as temporary:
        folder = Path(temporary)
        fleet = prepare_fleet(found, file.manifest, division, folder).fleet
        (folder / "model.tflite").write_bytes(content)
        summed_up = _summed_up(file, content, settings, fleet, folder, minimum_examples, runtime)
    if len(summed_up) < shown_from:
        few = f", as others have fewer than {minimum_examples} rows" if len(summed_up) < len(fleet) else ""
        raise SettingError(
            f"Statistics are of at least {shown_from} devices ({{shown_from}}), and {len(summed_up)} of {len(fleet)} "
            f"sum up their data{few}: of fewer, single ones could be seen in the sums.",
            hint="Take more {devices}, or a smaller {shown_from}, if the devices' owners would agree.",
        )
    state = StrategyState(file.initial_weights(), file.manifest.layout.weight_size)
    folded = fold_statistics(state, in_order(summed_up), file.manifest.inputs)
    statistics: dict[str, Any] = folded.findings["statistics"]
    if out is not None:
        write_text(Path(out), json.dumps(statistics, indent=1) + "\n")
    return statistics


def _summed_up(
    file: ModelFile,
    content: bytes,
    settings: RunSettings,
    fleet: Fleet,
    folder: Path,
    minimum_examples: int,
    runtime: str,
) -> list[Contribution]:
    """Lets each device do its task; whatever a server would accept of them."""
    manifest, weights, demand = file.manifest, file.initial_weights(), demand_for(settings)
    engine = InProcess(Setup(folder / "model.tflite", folder, folder / "memories", _expected(manifest), runtime))
    base = engine.publish({WEIGHTS: weights})
    model, told = Blob(sha256(content), len(content)), Blob(weights_hash(weights), weights.nbytes)
    source = TaskSource("fleet", "simulated", 0, 1, 1, model, manifest.graph_hash, manifest.layout_hash, told)
    found: list[Contribution] = []
    for device, name in enumerate(fleet.names):
        assignment = Assignment(name, 1, 0.0, _ONE_AT_A_TIME, _ONE_AT_A_TIME)
        task = task_for(source, settings, demand, assignment, _ONE_AT_A_TIME)
        update = engine.result(engine.submit(Job(task, base, fleet.rows(device), minimum_examples))).update
        if update is not None:
            found.extend(Updates.of([update]).contributions)
    engine.close()
    return found


def _expected(manifest: ModelManifest) -> Expectation:
    layout = manifest.layout
    limits = ModelLimits.of(manifest)
    return Expectation("", "", manifest.layout_hash, layout.weight_size, layout.statistic_size, limits=limits)
