"""The result of a simulation: a row for each round, and the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import around_training
from edgefl.model_file import ModelFile
from edgefl.parts import Part, needing
from edgefl_server.aggregation import Spread, finalise
from edgefl_simulation.curves import MEASURED_ON, axis_of, curve, flat_rows, measured, metrics_of, scale, wide, written
from edgefl_simulation.evaluating import Evaluation
from edgefl_simulation.picture import Band, Line, Picture, draw
from edgefl_simulation.plans import Round
from edgefl_simulation.recorded import read_run, read_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["History", "row_of"]

Row = dict[str, Any]


@dataclass(repr=False)
class History:
    """The result of a simulation.

        history.table()                       # a row for each round, as pandas.DataFrame takes it
        history.plot()                        # accuracy by round, with the spread over devices
        History.load("digits-run").final      # of a run that was kept

    Attributes:
        rounds: a row of plain values for each round, see `row_of`.
        initial: the evaluation before the first round, as in a row.
        weights: float32 ``[layout.size]``: the newest.
        manifest: of the model file.
        model: the model file.
        folder: where everything was written; None: nowhere.
        stopped: why the run ended before its last round; empty otherwise.
        failed: the error that ended it; empty: none did.
        devices_per_second: that trained, beside evaluation; of this process's rounds.
    """

    manifest: ModelManifest
    weights: NDArray[np.float32]
    model: bytes = field(repr=False)
    rounds: list[Row] = field(default_factory=list)
    initial: Row = field(default_factory=dict)
    folder: Path | None = None
    stopped: str = ""
    failed: str = ""
    devices_per_second: float = 0.0

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> History:
        """Reads back what a simulation left in a folder, also one that is under way or was broken off.

        Args:
            folder: as ``out=``, or `edgefl simulate -o`, was given.

        Raises:
            InvalidSettingError: it is no such folder.
            StorageError: a file in it cannot be read, or is damaged.
            ModelFileError: the model file in it is none.
        """
        run = read_run(folder)
        file = ModelFile.read(run.folder / "model.tflite")
        weights = read_weights(run.folder, file.manifest.layout.size)
        speed = run.summary.get("devices_per_second")
        return cls(
            file.manifest,
            file.initial_weights() if weights is None else weights,
            bytes(file.data),
            run.rounds,
            run.initial,
            run.folder,
            run.stopped,
            run.failed,
            float(speed) if isinstance(speed, (int, float)) else 0.0,
        )

    def __repr__(self) -> str:
        kept = f", kept in {self.folder}" if self.folder else ""
        return f"<History of {len(self.rounds)} rounds: {self.told()}{kept}>"

    def told(self) -> str:
        """The latest figures in words, and what they are of where that is not the held-out rows."""
        kind, values = measured([self.initial, *self.rounds])
        if not values:
            return "not evaluated"
        text = ", ".join(f"{name} {written(value)}" for name, value in values.items()) + MEASURED_ON[kind]
        return f"not evaluated; {text}" if kind == "training" else text

    def table(self) -> list[Row]:
        """A row for each round with the same flat columns, for ``pandas.DataFrame(history.table())``.

        Returns:
            Rows with ``round``, ``clock`` (simulated seconds), ``central.accuracy``, ``federated.accuracy.mean``,
            ``federated.accuracy.quantiles.0.1``, ``outcomes.done`` and whatever else rounds say; None where a round
            does not. Round 0 is the evaluation before the first.
        """
        return flat_rows(self.initial, self.rounds)

    def plot(self, metric: str = "", *, against: str = "round", label: str = "", axes: Axes | None = None) -> Axes:
        """Draws a metric on the held-out rows, and between which quantiles it lies for eight tenths of the devices.

        Args:
            metric: its name; by default accuracy, or else the first that there is.
            against: ``round``, ``time`` (simulated) or ``bytes`` (up and down).
            label: as a legend is to call it, where several histories are drawn into the same axes.
            axes: of matplotlib, to draw into; by default those of a new figure of pyplot.

        Returns:
            The axes, to go on with: ``history.plot().set_ylim(0, 1)``.

        Raises:
            InvalidSettingError: there is no such metric, or nothing to draw it against.
            MissingDependencyError: matplotlib is not installed.
        """
        rows, along = self.table(), axis_of(against)
        known = dict.fromkeys([*metrics_of(rows, "central"), *metrics_of(rows, "federated")])
        metric = metric or ("accuracy" if "accuracy" in known else next(iter(known), ""))
        central = curve(rows, f"central.{metric}", along)
        mean = curve(rows, f"federated.{metric}.mean", along)
        if not central and not mean:
            got = f"no values of {metric!r:.80}" if metric in known else f"no metric {metric!r:.80}"
            raise InvalidSettingError(
                f"Expected a metric with values {along.phrase} to plot, got {got}.",
                hint=f"This history has {', '.join(known)}." if known else "Nothing was evaluated.",
            )
        with needing(Part("edgefl_simulation", "simulate")):
            if axes is None:
                from matplotlib import pyplot

                axes = pyplot.subplots(layout="constrained")[1]
        low, high = (curve(rows, f"federated.{metric}.quantiles.{share}", along) for share in ("0.1", "0.9"))
        unit, name = scale(along.column, max([*central.x, *mean.x]))
        shown, place = central if central else mean, len(axes.lines)
        bands = (Band("", [x / unit for x in low.x], low.y, high.y, place),) if low and low.x == high.x else ()
        lines = (Line(label, [x / unit for x in shown.x], shown.y, place, place),)
        across = f"{along.label} ({name})" if name else along.label
        values = [*shown.y, *(each for band in bands for each in (*band.low, *band.high))]
        # Once logarithmic, axes that several histories share stay so.
        logarithmic = wide(values) or axes.get_yscale() == "log"
        title = f"{metric} {along.phrase}"
        draw(Picture(metric, title, across, metric, lines, bands, logarithmic=logarithmic), axes)
        if label:
            axes.lines[-1].set_label(label)
            axes.legend()
        return axes

    def metric(self, name: str = "accuracy") -> list[float]:
        """One metric on the held-out rows, of each round that has it."""
        return [row["central"][name] for row in self.rounds if name in row.get("central", {})]

    @property
    def final(self) -> Mapping[str, float]:
        """The metrics on the held-out rows after the latest round that has any."""
        found = [row["central"] for row in [self.initial, *self.rounds] if row.get("central")]
        return found[-1] if found else {}

    def _latest(self, what: str) -> Row:
        """A part of the evaluation after the latest round that has it."""
        found: Row = next((row[what] for row in reversed(self.rounds) if row.get(what)), {})
        return found

    def summary(self) -> Row:
        """The result as plain values."""
        return {
            "rounds": len(self.rounds),
            "failed_rounds": sum(row.get("state") == "failed" for row in self.rounds),
            "simulated_seconds": self.rounds[-1].get("clock") if self.rounds else 0.0,
            "initial": self.initial,
            "central": dict(self.final),
            "federated": self._latest("federated"),
            **({"personalised": found} if (found := self._latest("personalised")) else {}),
            "stopped": self.stopped,
            "failed": self.failed,
            "devices_per_second": round(self.devices_per_second, 1),
        }


def row_of(done: Round, manifest: ModelManifest, evaluation: Evaluation | None, seconds: float) -> Row:
    """A round as plain values.

    Args:
        done: the round.
        manifest: the model's.
        evaluation: of the weights after it; None: they were not evaluated.
        seconds: that it really took.

    Returns:
        ``round``, ``version``, ``state``, ``clock`` (simulated seconds; None where time was real), ``seconds``,
        ``outcomes`` by how they ended, ``num_examples``, ``training`` (metrics of the devices while they trained),
        ``central``, ``federated`` and ``personalised`` (see `Evaluation`), ``diagnostics``, ``why`` and ``errors``,
        and what `edgefl_simulation.plans.Costs` says.
    """
    folded = done.folded
    row: Row = {
        "round": done.fold,
        "version": done.version,
        "state": "failed" if folded is None else "done",
        "clock": done.clock,
        "seconds": round(seconds, 4),
        "outcomes": dict(sorted(done.outcomes.items())),
        "num_examples": 0 if folded is None else folded.num_examples,
        "training": {} if folded is None else finalise(folded.metric_sums, around_training(manifest.metrics)),
        "diagnostics": {} if folded is None else dict(folded.diagnostics),
        **({} if done.costs is None else done.costs.plain()),
    }
    if done.staleness:
        row["staleness"] = list(done.staleness)
    if done.why:
        row["why"] = done.why
    if done.errors:
        row["errors"] = list(done.errors[:10])
    return row | evaluated(evaluation)


def evaluated(evaluation: Evaluation | None) -> Row:
    """An evaluation as plain values."""
    if evaluation is None:
        return {}
    row: Row = {"central": dict(evaluation.central)} if evaluation.central else {}
    if evaluation.federated:
        row["federated"] = {"devices": evaluation.devices, **_plain(evaluation.federated)}
    if evaluation.personalised is not None:
        found = evaluation.personalised
        row["personalised"] = {"devices": found.devices, "before": _plain(found.before), "after": _plain(found.after)}
    return row


def _plain(spreads: Mapping[str, Spread]) -> Row:
    """Each metric's spread over devices as plain values, its quantiles by their share as text."""
    return {name: each.to_json() for name, each in spreads.items()}
