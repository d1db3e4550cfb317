"""Makes a run's curves of what is known of it: values in, columns out. Values of the whole fleet only."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["charts", "history_table", "rows_of"]

_TRAINING, _DEVICES, _SERVER = "in training", "on devices", "on the server's data"


def rows_of(status: Mapping[str, Any], history: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each version of the weights and for each round that made none, in order.

    Args:
        status: as `run_status` tells it.
        history: as `run_history` tells it.

    Returns:
        ``round``, ``version``, ``state``, ``why``, ``outcomes``, ``seconds``, bytes; and ``training``, ``devices`` and
        ``server``: metrics by name; ``spread``: over devices, by metric.
    """
    versions = {each["round"]: each for each in history["versions"] if each["by"] == "fold"}
    evaluated = {each["version"]: each for each in status["evaluations"] if each["state"] == "done"}
    central = {each["version"]: each["metrics"] for each in status["central"]}
    first = {
        "round": 0,
        "version": 0,
        "state": "start",
        "why": "",
        "outcomes": {},
        "seconds": None,
        "bytes_up": None,
        "bytes_down": None,
        "training": {},
    }
    rows = [first]
    for each in status["history"]:
        made = versions.get(each["round"])
        values = dict(each["metrics"])
        if each["loss"] is not None:
            values = {"loss": each["loss"], **values}
        rows.append(
            {
                "round": each["round"],
                "version": None if made is None else made["version"],
                "state": each["state"],
                "why": each["why"],
                "outcomes": each["outcomes"],
                "seconds": each["seconds"],
                "bytes_up": None if made is None else made["bytes_up"],
                "bytes_down": None if made is None else made["bytes_down"],
                "training": values if made is not None else {},
            }
        )
    for row in rows:
        found = evaluated.get(row["version"])
        row["devices"] = {} if found is None else _values(found)
        row["spread"] = {} if found is None else found.get("findings", {}).get("spread", {})
        row["server"] = dict(central.get(row["version"], {}))
    return rows


def _values(evaluation: Mapping[str, Any]) -> dict[str, float]:
    loss = {} if evaluation["loss"] is None else {"loss": evaluation["loss"]}
    return {**loss, **evaluation["metrics"]}


def charts(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The charts of a run: each metric as measured in three ways, its spread over devices, and bytes.

    Returns:
        For each ``title``, ``unit``, ``x`` (rounds) and ``lines``: ``label``, ``values`` (None where there is none).
        Those without a value are left out.
    """
    rows = [each for each in rows if each["version"] is not None]
    names: dict[str, None] = {}
    for row in rows:
        for part in ("training", "devices", "server"):
            names.update(dict.fromkeys(row[part]))
    found = []
    for name in sorted(names, key=lambda each: each != "loss"):  # the loss first, the others as they come
        lines = [
            (label, [row[part].get(name) for row in rows])
            for label, part in ((_TRAINING, "training"), (_DEVICES, "devices"), (_SERVER, "server"))
        ]
        found.append(_chart(name, "", rows, lines))
        spread = [row["spread"].get(name) or {} for row in rows]
        quantiles = [each.get("quantiles", {}) for each in spread]
        found.append(
            _chart(
                f"{name}: spread over devices",
                "",
                rows,
                [
                    ("mean", [each.get("mean") for each in spread]),
                    ("a tenth is below", [each.get("0.1") for each in quantiles]),
                    ("a tenth is above", [each.get("0.9") for each in quantiles]),
                    ("mean less deviation", [_away(each, -1) if "quantiles" not in each else None for each in spread]),
                    ("mean plus deviation", [_away(each, 1) if "quantiles" not in each else None for each in spread]),
                ],
            )
        )
    found.append(
        _chart(
            "bytes of a round",
            "bytes",
            rows,
            [("up", [each["bytes_up"] for each in rows]), ("down", [each["bytes_down"] for each in rows])],
        )
    )
    return [each for each in found if each["lines"]]


def _away(spread: Mapping[str, float], times: float) -> float | None:
    return spread["mean"] + times * spread["deviation"] if spread else None


def _chart(title: str, unit: str, rows: list[Any], lines: list[tuple[str, list[Any]]]) -> dict[str, Any]:
    return {
        "title": title,
        "unit": unit,
        "x": [each["round"] for each in rows],
        "lines": [
            {"label": label, "values": values} for label, values in lines if any(each is not None for each in values)
        ],
    }


def history_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as CSV, a column for each figure."""
    flat = [_flat(each) for each in rows]
    columns: dict[str, None] = {}
    for row in flat:
        columns.update(dict.fromkeys(row))
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(_harmless(each) for each in columns)
    writer.writerows([_harmless(row.get(each)) for each in columns] for row in flat)
    return file.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if not isinstance(value, Mapping):
            found[name] = value
            continue
        for inner, each in value.items():
            if isinstance(each, Mapping):
                figures = {of: figure for of, figure in each.items() if not isinstance(figure, Mapping)}
                found |= {f"{name}.{inner}.{of}": figure for of, figure in figures.items()}
            else:
                found[f"{name}.{inner}"] = each
    return found


def _harmless(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula is told to be none."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
