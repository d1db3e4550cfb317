"""Words what ``edgefl inspect`` prints for people: one screen for a small model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_text"]

_FREQUENT = 4
"""So many of a signature's ops are named in the table; JSON has all."""


def as_text(file: str, result: Mapping[str, Any]) -> str:
    """The whole text.

    Args:
        file: what the user called it.
        result: as `edgefl inspect --format json` prints it.
    """
    return "\n".join(
        [
            f"{file}: {result['bytes']:,} bytes, intact; made for target {result['target']}; "
            f"{_evidence(result['evidence'])}",
            f"  batch of {_rows(result)}; {', '.join(result['inputs'])} -> {', '.join(result['outputs'])}; "
            f"targets: {', '.join(result['targets']) or 'none'}",
            *_looked_up(result["index_sizes"]),
            *(f"  of all rows of a batch together: {each}" for each in result["of_whole_batches"]),
            f"  loss {result['loss'] or 'of its own'}, {result['optimizer']} "
            f"at learning rate {result['learning_rate']:g}, metrics: {', '.join(result['metrics']) or 'none'}",
            f"  bytes: {', '.join(f'{role} {size:,}' for role, size in result['sizes'].items())}",
            f"  {result['weight_elements']:,} weights and {result['statistic_elements']:,} statistics travel, "
            f"{result['bytes_that_travel']:,} bytes as float32; {result['local_elements']:,} values stay local; "
            f"{_frozen(len(result['frozen']))}",
            *_choices(result),
            *_parameters(result["parameters"]),
            *_step(result["signatures"].get("train")),
            *_signatures(result),
            *_runtimes(result),
            *(f"  {name} {result[f'{name}_hash']}" for name in ("graph", "layout", "weights")),
        ]
    )


def _evidence(evidence: Sequence[Mapping[str, str]] | None) -> str:
    """Says which runtimes ran the file when it was converted, and for which targets none did."""
    if evidence is None:
        return "no report of its conversion beside it says what it was verified on"
    ran = [each["ran_on"] for each in evidence if each["ran_on"]]
    others = [f"not run for {each['target']}: {each['table_only']}" for each in evidence if not each["ran_on"]]
    return "; ".join([f"verified on {' and '.join(ran)}" if ran else "verified on no runtime", *others])


def _rows(result: Mapping[str, Any]) -> str:
    size, rows = result["batch_size"], result["micro_batch"]
    parts = "" if rows is None else f" ({size // rows} × {rows})"
    if result["further_batch_sizes"]:
        parts = f" (or {', '.join(map(str, result['further_batch_sizes']))})"
    return f"{size}{parts} {'row' if size == 1 else 'rows'}"


def _looked_up(sizes: Mapping[str, Any]) -> list[str]:
    """Says between which numbers inputs must lie that are looked up."""
    lines = []
    for name, entries in sizes.items():
        one = [entries] if isinstance(entries, int) else [each for each in entries if each is not None]
        ends = " or ".join(str(each - 1) for each in sorted(set(one)))
        some = "" if isinstance(entries, int) else f", {len(one)} of {len(entries)} values of a row,"
        lines.append(f"  input {name!r}{some} is looked up: whole numbers from 0 to {ends}")
    return lines


def _frozen(count: int) -> str:
    return "1 variable is frozen" if count == 1 else f"{count:,} variables are frozen"


def _choices(result: Mapping[str, Any]) -> list[str]:
    """Says how it was chosen what is trained, and what else the file can do; nothing for a plain file."""
    chosen = ", ".join(f"{name} {_plain(value)}" for name, value in result["fine_tuning"].items())
    lines = [f"  made with {chosen}"] if chosen else []
    return lines + ([f"  supports {', '.join(result['algorithms'])}"] if result["algorithms"] else [])


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_plain(each)}" for name, each in value.items() if each is not None) + ")"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _parameters(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    width = max((len(parameter["name"]) for parameter in parameters), default=0)
    return [
        f"    {parameter['name']:{width}}  {parameter['role']:9}  "
        f"{'×'.join(map(str, parameter['shape'])) or 'scalar'}{'' if parameter['shared'] else '  local only'}"
        for parameter in parameters
    ]


def _step(train: Mapping[str, Any] | None) -> list[str]:
    if not train or not train["flops"]:
        return []
    counts = {kind: count for kind, count in train["flops"].items() if count}
    total = counts.pop("total", 0)
    return [f"  one step: {total:,} FLOPs ({', '.join(f'{kind} {count:,}' for kind, count in counts.items())})"]


def _signatures(result: Mapping[str, Any]) -> list[str]:
    """A table: a signature's ops, its arena on each runtime that was measured, its most frequent ops."""
    measured = [each for each in result["measured"] or () if each["arenas"] is not None]
    header = ["signature", "ops", *(f"arena {each['runtime']}" for each in measured), "most frequent"]
    rows = [
        [
            name,
            f"{sum(signature['ops'].values()):,}",
            *(f"{each['arenas'][name]:,}" for each in measured),
            ", ".join(f"{op} {count}" for op, count in list(signature["ops"].items())[:_FREQUENT]),
        ]
        for name, signature in result["signatures"].items()
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header) - 1)]
    lines = []
    for row in (header, *rows):
        cells = [f"{row[0]:{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:-1], widths[1:]))]
        lines.append(f"  {'  '.join([*cells, row[-1]])}".rstrip())
    return lines


def _runtimes(result: Mapping[str, Any]) -> list[str]:
    lines = [_runtime(each) for each in result["measured"] or ()]
    if result["measured"]:
        return lines
    if result["measured"] is None:
        return ["  arenas and delegation were not measured (--no-measure)"]
    return [
        "  arenas and delegation were not measured: that needs a TFLite interpreter, and none is installed",
        f"  install one with: {result['install']}",
    ]


def _runtime(each: Mapping[str, Any]) -> str:
    name = f"{each['runtime']} {each['version']}".rstrip()
    if each["reason"]:
        return f"  {name}: not measured: {each['reason']}"
    parts = []
    if each["arenas"] is None:
        parts.append("arenas not measured: that needs the GNU C library 2.33 or newer")
    else:
        parts.append(f"graphs hold {each['loaded']:,} bytes, variables {each['variables']:,}")
    if each["delegation"] is not None:
        taken = each["delegation"]
        parts.append(
            f"XNNPACK takes {taken['taken']} of the {taken['ops']} ops of train, in {taken['partitions']} "
            f"{'part' if taken['partitions'] == 1 else 'parts'}"
        )
    return f"  {name}: {'; '.join(parts)}"
