"""What edgefl wants to reach, as data, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_steps.contending import PEERS

__all__ = ["BARS", "FASTEST", "JUDGED", "Bar", "Judgement", "judge"]

FASTEST = "fastest peer"
JUDGED = "edgefl ai-edge-litert"
"""The contender whose figures are held against the bars; tflite-runtime's have none."""


@dataclass(frozen=True)
class Bar:
    """One limit for some models.

    Attributes:
        models: keys of `CASES`.
        figure: key of a row: `step_ms`, `peak_rss_mb` or `cold_start_s`.
        must: at most this.
        goal: better at most this.
        to: the family, or `FASTEST`, to which the figure is a ratio; where empty, the figure itself counts.
        above_needs: the figure counts less live activations and weights.
        threads: for which it holds; all where empty.
    """

    models: tuple[str, ...]
    figure: str
    must: float | None = None
    goal: float | None = None
    to: str = ""
    above_needs: bool = False
    threads: tuple[int, ...] = ()


REST = ("smartwatch_1d_cnn", "mobilenet_v2_head", "mobilenet_v2", "lstm", "transformer")
BARS = (
    Bar(("2nn",), "step_ms", 1.2, 0.8, "ONNX Runtime", threads=(1,)),
    Bar(("2nn",), "step_ms", 0.7, None, "PyTorch", threads=(1,)),
    Bar(("2nn",), "step_ms", 0.6, None, "tf.function", threads=(1,)),
    Bar(("fedavg_cnn",), "step_ms", 1.0, None, "ONNX Runtime"),
    Bar(("fedavg_cnn",), "step_ms", 2.0, 1.0, FASTEST),
    Bar(("mobilenet_v2_head",), "step_ms", 0.5, 0.25, FASTEST),
    Bar(("lstm",), "step_ms", 1.0, 0.5, FASTEST),
    Bar(("mobilenet_v2", "transformer"), "step_ms", 2.0, 1.0, FASTEST),
    Bar(("2nn", "fedavg_cnn"), "peak_rss_mb", 1.0, None, "ONNX Runtime"),
    Bar(("2nn",), "peak_rss_mb", None, 55.0),
    Bar(("fedavg_cnn",), "peak_rss_mb", None, 90.0),
    Bar(REST, "peak_rss_mb", 50.0, None, above_needs=True),
    Bar(("2nn",), "cold_start_s", 0.3, 0.2),
)


@dataclass(frozen=True)
class Judgement:
    """One bar on one group of rows.

    Attributes:
        where: model, batch and threads.
        what: the figure, and what it is compared with.
        value: None where something that is needed for it did not run.
        must: as the bar has it.
        goal: as the bar has it.
    """

    where: str
    what: str
    value: float | None
    must: float | None
    goal: float | None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.where}: {self.what}: not measured"
        bars = [
            f"{name} ≤ {bar:g} {'met' if self.value <= bar else 'NOT MET'}"
            for name, bar in (("must", self.must), ("goal", self.goal))
            if bar is not None
        ]
        return f"{self.where}: {self.what} {self.value:.3g}: {', '.join(bars)}"


def judge(rows: Sequence[Mapping[str, Any]]) -> list[Judgement]:
    """Holds the rows of `JUDGED` against the bars.

    A ratio to the fastest peer counts only where all of them were measured.
    """
    found = []
    for row in rows:
        if row["contender"] != JUDGED or row["why_not"]:
            continue
        for bar in BARS:
            if row["model"] in bar.models and (not bar.threads or row["threads"] in bar.threads):
                value, what = _value(bar, row, rows)
                where = f"{row['model']}, batch {row['batch']}, threads {row['threads']}"
                found.append(Judgement(where, what, value, bar.must, bar.goal))
    return found


def _value(bar: Bar, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    own = row[bar.figure]
    if bar.above_needs:
        above = own - row["live_mb"] - row["weights_mb"] if "live_mb" in row else None
        return above, f"{bar.figure} above live activations and weights"
    if not bar.to:
        return own, bar.figure
    what = f"{bar.figure} / {bar.to}"
    group = [
        each
        for each in rows
        if all(each[key] == row[key] for key in ("model", "batch", "threads")) and not each["why_not"]
    ]
    wanted = set(PEERS) if bar.to == FASTEST else {bar.to}
    figures = [each[bar.figure] for each in group if each["family"] in wanted]
    complete = wanted <= {each["family"] for each in group}
    return (own / min(figures) if complete else None), what
