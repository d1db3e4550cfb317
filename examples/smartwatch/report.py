"""The end of the demo: a table, a picture, and summary.json."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgefl.atomic import write_bytes, write_text
from examples.smartwatch.contenders import Accuracies

__all__ = ["Result", "draw", "print_table", "write_summary"]


@dataclass(frozen=True)
class Result:
    """Everything that a run of the demo has measured.

    Attributes:
        initial: the model before training.
        alone: each person's device on its own; unseen people: mean of the eight models.
        rounds: the federated model after each round.
        centralised: trained on all devices' data in one place; the mean of several orders of the examples.
        devices: how many took part.
        bytes_up_per_device: mean of the bytes of all request bodies that a device sent.
        device_peak_rss_mb: of the device process with the largest one, in MB of 2**20 bytes.
        seconds: the whole demo.
    """

    initial: Accuracies
    alone: Accuracies
    rounds: tuple[Accuracies, ...]
    centralised: Accuracies
    devices: int
    bytes_up_per_device: int
    device_peak_rss_mb: float
    seconds: float

    @property
    def federated(self) -> Accuracies:
        """After the last round."""
        return self.rounds[-1]

    @property
    def contenders(self) -> dict[str, Accuracies]:
        """By name, from the worst expected to the best."""
        return {
            "initial": self.initial,
            "alone": self.alone,
            "federated": self.federated,
            "centralised": self.centralised,
        }

    def summary(self) -> dict[str, Any]:
        """The documented keys first; accuracies are means over people, from 0 to 1."""
        return {
            "initial_accuracy": _short(self.initial.on_other_shoulder),
            "alone_accuracy_mean": _short(self.alone.on_other_shoulder),
            "federated_accuracy": _short(self.federated.on_other_shoulder),
            "centralised_accuracy": _short(self.centralised.on_other_shoulder),
            "unseen_people_accuracy": _short(self.federated.on_unseen_people),
            "rounds": len(self.rounds),
            "devices": self.devices,
            "bytes_up_per_device": self.bytes_up_per_device,
            "device_peak_rss_mb": round(self.device_peak_rss_mb, 1),
            "seconds": round(self.seconds, 1),
            "accuracy_per_round": [_short(each.on_other_shoulder) for each in self.rounds],
            "accuracy_per_person": _each(self.contenders, "other_shoulder"),
            "unseen_accuracy_per_person": _each(self.contenders, "unseen_people"),
        }


def write_summary(result: Result, path: Path) -> None:
    """Writes summary.json."""
    write_text(path, json.dumps(result.summary(), indent=2) + "\n")


def print_table(result: Result, console: Console) -> None:
    """Prints who reaches what, in per cent."""
    table = Table(title="Share of two-second windows recognised (7 exercises; chance: 14 %)")
    table.add_column("model")
    table.add_column("other shoulder", justify="right")
    table.add_column("people who took no part", justify="right")
    titles = {
        "initial": "before training",
        "alone": "each device alone (mean)",
        "federated": f"federated, {len(result.rounds)} rounds",
        "centralised": "all data in one place (ceiling)",
    }
    for name, accuracies in result.contenders.items():
        table.add_row(
            titles[name],
            f"{accuracies.on_other_shoulder:.1%}",
            f"{accuracies.on_unseen_people:.1%}",
            style="bold" if name == "federated" else None,
        )
    console.print(table)
    console.print(
        f"{result.devices} devices sent {result.bytes_up_per_device / 1e6:.2f} MB each; "
        f"a device process used at most {result.device_peak_rss_mb:.1f} MB of memory.",
        highlight=False,
    )


def draw(result: Result, path: Path) -> None:
    """Draws accuracy per round, the contenders as lines beside it, and each person's bars."""
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    from matplotlib import pyplot

    colours = {"initial": "#9e9e9e", "alone": "#d08c3c", "federated": "#1f6fb4", "centralised": "#3f8f4f"}
    figure, (course, people) = pyplot.subplots(1, 2, figsize=(12, 4.6), width_ratios=(3, 4))
    numbers = range(len(result.rounds) + 1)
    federated = (result.initial, *result.rounds)
    course.plot(numbers, [_percent(each.on_other_shoulder) for each in federated], color=colours["federated"], lw=2)
    course.plot(
        numbers, [_percent(each.on_unseen_people) for each in federated], color=colours["federated"], lw=1, ls=":"
    )
    course.annotate(
        "federated (dotted: people who took no part)", (0.98, 0.03), xycoords="axes fraction", ha="right",
        color=colours["federated"], fontsize=9,
    )  # fmt: skip
    for name, title in (("alone", "each device alone"), ("centralised", "all data in one place")):
        level = _percent(result.contenders[name].on_other_shoulder)
        course.axhline(level, color=colours[name], ls="--", lw=1.2)
        course.annotate(title, (numbers[-1], level), ha="right", va="bottom", color=colours[name], fontsize=9)
    course.set(xlabel="round", ylabel="accuracy on the other shoulder, %", ylim=(0, 100), xlim=(0, numbers[-1]))
    course.xaxis.get_major_locator().set_params(integer=True)

    _bars(people, result, colours)
    for axes in (course, people):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    figure.suptitle("Shoulder exercises from eight smartwatches: recordings stay, weights travel", fontsize=12)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130, format="png")
    pyplot.close(figure)
    write_bytes(path, buffer.getvalue())


def _bars(axes: Any, result: Result, colours: Mapping[str, str]) -> None:
    shown = ("alone", "federated", "centralised")
    taking_part, unseen = len(result.initial.other_shoulder), len(result.initial.unseen_people)
    labels = [f"{number + 1}" for number in range(taking_part + unseen)]
    for offset, name in enumerate(shown):
        accuracies = result.contenders[name]
        heights = [_percent(value) for value in (*accuracies.other_shoulder, *accuracies.unseen_people)]
        places = [index + (index >= taking_part) * 0.6 + (offset - 1) * 0.27 for index in range(len(heights))]
        axes.bar(places, heights, 0.25, color=colours[name], label=name)
    axes.set_xticks([index + (index >= taking_part) * 0.6 for index in range(len(labels))], labels)
    axes.set(xlabel="person (right of the gap: took no part)", ylabel="accuracy, %", ylim=(0, 100))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=3, frameon=False, fontsize=9)


def _each(contenders: Mapping[str, Accuracies], which: str) -> dict[str, list[float]]:
    return {name: _shortened(getattr(accuracies, which)) for name, accuracies in contenders.items()}


def _shortened(values: Sequence[float]) -> list[float]:
    return [_short(value) for value in values]


def _short(value: float) -> float:
    return round(value, 4)


def _percent(value: float) -> float:
    return 100 * value
