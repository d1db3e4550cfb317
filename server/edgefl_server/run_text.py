"""Runs as text for people."""

from __future__ import annotations

from typing import Any

__all__ = [
    "ENDED",
    "central_line",
    "counted",
    "evaluation_line",
    "headline",
    "round_line",
    "runs",
    "status",
    "troubles",
    "waiting",
]

ENDED = ("done", "failed")
"""The states of a round that is over."""
_EVALUATION = {
    "selecting": "is evaluated",
    "collecting": "is evaluated",
    "folding": "is evaluated",
    "done": "evaluated",
    "failed": "not evaluated",
}


def headline(result: dict[str, Any]) -> str:
    """Says which run it is, and where it stands."""
    label = f" ({result['name']})" if result["name"] else ""
    return f"run {result['run']}{label}: {result['state']}, {_position(result)}"


def waiting(result: dict[str, Any]) -> str:
    """Says what a run that goes on lacks before a round can end; empty when it lacks nothing."""
    if result["state"] == "paused":
        return f"paused: devices get no work of it until `edgefl run resume {result['run']}`"
    enrolled, needed = result["devices_enrolled"], result.get("devices_needed", result["target"])  # of an older server
    if result["state"] != "active" or enrolled is None or needed is None or enrolled >= needed:
        return ""
    return f"waiting: {enrolled:,} of {counted(needed, 'device')} enrolled in {result['population']}"


def status(result: dict[str, Any], *, rounds: bool = True) -> str:
    """A run's status: what it is, then one line a round.

    Args:
        result: as the server tells it.
        rounds: whether the rounds are wanted, which who has watched them has seen.
    """
    lines = [headline(result)]
    if result["why"]:
        lines.append(f"  why: {result['why']}")
    lines += [f"  {line}" for line in troubles(result)]
    if result["settings"]:
        lines.append(
            f"  population {result['population']}: {counted(result['devices_enrolled'], 'device')} enrolled, "
            f"{counted(result['tasks_open'], 'task')} open, target {result['target']}, "
            f"strategy {result['settings'].get('strategy', 'fedavg')}"
        )
    lines += [f"  {round_line(entry)}" for entry in result["history"] if rounds]
    lines += [f"  {evaluation_line(entry)}" for entry in result.get("evaluations", ()) if rounds]
    lines += [f"  {central_line(entry)}" for entry in result.get("central", ()) if rounds]
    lines.append(f"  weights {result['weights_hash']}")
    return "\n".join(lines)


def round_line(entry: dict[str, Any]) -> str:
    """One round in one line."""
    counts = ", ".join(f"{count} {name}" for name, count in entry["outcomes"].items() if count)
    if not counts:
        counts = "no outcomes" if entry["state"] in ENDED else "no outcomes yet"
    parts = [f"round {entry['round']:>4} {entry['state']:<10} {entry['seconds']:>6.1f} s  {counts}"]
    parts += _figures(entry)
    if entry["reasons"]:
        parts.append("reasons: " + ", ".join(f"{name} ×{count}" for name, count in entry["reasons"].items()))
    parts += _held_back(entry["diagnostics"])
    if entry["why"]:
        parts.append(entry["why"])
    return "; ".join(parts)


def evaluation_line(entry: dict[str, Any]) -> str:
    """One evaluation of a version on devices in one line."""
    done = entry["outcomes"]["folded"] or entry["outcomes"]["accepted"]
    parts = [f"version {entry['version']:>4} {_EVALUATION[entry['state']]} on {counted(done, 'device')}"]
    parts += _figures(entry)
    if entry["reasons"]:
        parts.append("reasons: " + ", ".join(f"{name} ×{count}" for name, count in entry["reasons"].items()))
    parts += _held_back(entry["diagnostics"])
    if entry["why"]:
        parts.append(entry["why"])
    return "; ".join(parts)


def central_line(entry: dict[str, Any]) -> str:
    """One evaluation of a version on the operator's data in one line."""
    start = f"version {entry['version']:>4}"
    if entry["why"]:
        return f"{start} not evaluated on the server's data: {entry['why']}"
    values = "; ".join(f"{name} {value:.4f}" for name, value in entry["metrics"].items())
    return f"{start} evaluated on {counted(entry['examples'], 'example')} of the server's; {values}"


def _figures(entry: dict[str, Any]) -> list[str]:
    """Loss and metrics, over the fleet and, where devices evaluated, over devices."""
    spread = entry.get("findings", {}).get("spread", {})
    values = {} if entry["loss"] is None else {"loss": entry["loss"]}
    values.update(entry["metrics"])
    return [f"{name} {value:.4f}" + _over_devices(spread.get(name)) for name, value in values.items()]


def _over_devices(spread: dict[str, Any] | None) -> str:
    """Says how a metric differs between devices; empty over few."""
    if not spread:
        return ""
    text = f"devices {spread['mean']:.4f} ± {spread['deviation']:.4f}"
    quantiles = spread.get("quantiles")
    return f" ({text}" + (f", {quantiles['0.1']:.4f} to {quantiles['0.9']:.4f})" if quantiles else ")")


def _held_back(diagnostics: dict[str, float]) -> list[str]:
    """Says where the server did not take devices at their word; nothing in a round of honest ones."""
    parts = []
    if capped := int(diagnostics.get("devices_capped", 0)):
        cap = int(diagnostics["weight_cap"])
        parts.append(f"{counted(capped, 'device')} counted for no more than {counted(cap, 'example')}")
    if bounded := int(diagnostics.get("devices_bounded", 0)):
        elements = int(diagnostics["statistics_bounded"])
        parts.append(f"statistics of {counted(bounded, 'device')} held to their range ({counted(elements, 'element')})")
    if left_out := int(diagnostics.get("metrics_left_out", 0)):
        parts.append(f"metrics of {counted(left_out, 'device')} left out")
    return parts


def counted(count: int, noun: str) -> str:
    """Says how many of something there are; the noun is one that takes an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def troubles(result: dict[str, Any]) -> list[str]:
    """Says what does not work right now, and what operators should look at; one line each."""
    return [f"trouble: {each}" for each in result.get("troubles", ())] + [
        f"warning: {each}" for each in result.get("warnings", ())
    ]


def runs(result: dict[str, Any]) -> str:
    """One line a run, then what operators should look at."""
    lines = []
    for entry in result["runs"]:
        line = f"{entry['run']}  {entry['state']:<8} {_position(entry)}  {entry['population']}  {entry['name']}"
        lines.append("  ".join([line.rstrip(), *troubles(entry)]))
    return "\n".join([*(lines or ["no runs"]), *troubles({"warnings": result.get("warnings", [])})])


def _position(entry: dict[str, Any]) -> str:
    return f"round {entry['round']}" + ("" if entry["rounds"] is None else f" of {entry['rounds']}")
