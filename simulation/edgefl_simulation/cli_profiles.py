"""``edgefl profiles``: the profiles of devices that there are, what one says, and how long a model takes on it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl.model_file import ModelFile
from edgefl_simulation.profiles import SHIPPED, Cost, DeviceProfile, FleetProfile, cost_of, profile_of

__all__ = ["profiles"]

_WIDTH = 80


def profiles(
    profile: Annotated[
        str, typer.Argument(metavar="[PROFILE]", help=f"{', '.join(SHIPPED)}, or a .toml; checks it.")
    ] = "",
    model: Annotated[
        Path | None, typer.Option(help="A .tflite file: how long a step of it takes, and what moving it does.")
    ] = None,
    format: FormatOption = Format.text,
) -> None:
    """Say what profiles of devices there are, and where their numbers are from."""
    found = [profile_of(profile)] if profile else [profile_of(name) for name in SHIPPED]
    file = None if model is None else ModelFile.read(model)
    cost = None if file is None else cost_of(file)
    weights = 0 if file is None else 4 * file.manifest.layout.size
    result = {each.name: _plain(each, cost, weights) for each in found}
    emit(result, format, lambda: "\n\n".join(_text(each, result[each.name], sources=bool(profile)) for each in found))


def _plain(profile: FleetProfile, cost: Cost | None, weights: int) -> dict[str, Any]:
    plain = profile.to_json() | {"summary": profile.summary}
    for device, values in zip(profile.devices, plain["devices"], strict=True):
        values["sources"] = dict(device.sources)
        if cost is not None:
            compute, network = device.compute, device.network
            step = compute.step_overhead_ms / 1e3 + cost.flops / (1e9 * compute.gflops)
            values["model"] = {
                "steps_a_second": 1 / step,
                "download_seconds": 2 * network.latency_ms / 1e3 + 8 * weights / (1e6 * network.down_mbit_s),
                "upload_seconds": network.latency_ms / 1e3 + 8 * weights / (1e6 * network.up_mbit_s),
                "memory_mb": cost.memory_bytes / 1e6,
            }
    return plain


def _text(profile: FleetProfile, plain: dict[str, Any], *, sources: bool) -> str:
    lines = [f"{profile.name}: {profile.summary}".rstrip(": ")]
    for device, values in zip(profile.devices, plain["devices"], strict=True):
        lines += _device(device, values, sources=sources)
    for each in plain["attackers"]:
        settings = ", ".join(f"{key} {value}" for key, value in each.items() if key not in ("kind", "share", "among"))
        among = f" of {each['among']}" if each["among"] else ""
        lines.append(f"  {each['share']:.0%}{among} attack: {each['kind']}" + (f" ({settings})" if settings else ""))
    return "\n".join(lines)


def _device(device: DeviceProfile, values: dict[str, Any], *, sources: bool) -> list[str]:
    compute, network, reliability = values["compute"], values["network"], values["reliability"]
    memory = f", {compute['memory_mb']:,.0f} MB" if compute["memory_mb"] else ""
    rule = values["availability"]
    settings = ", ".join(f"{key} {value}" for key, value in rule.items() if key not in ("kind", "sha256"))
    lines = [
        f"{compute['gflops']:g} GFLOP/s on one thread{memory}, {compute['watts']:g} W",
        f"{network['down_mbit_s']:g} Mbit/s down, {network['up_mbit_s']:g} up, {network['latency_ms']:g} ms",
        f"there: {rule['kind']}" + (f" ({settings})" if settings else ""),
    ]
    if reliability["drop_out"]:
        lines.append(f"drops {reliability['drop_out']:.0%} of its tasks")
    if reliability["crashes_per_hour"]:
        lines.append(f"crashes {reliability['crashes_per_hour']:g} times an hour of training")
    if model := values.get("model"):
        lines.append(
            f"the model: {model['steps_a_second']:,.0f} steps a second, {model['download_seconds']:.2f} s down, "
            f"{model['upload_seconds']:.2f} s up, {model['memory_mb']:,.0f} MB"
        )
    if sources:
        lines += [f"{name}: {text}" for name, text in device.sources.items()]
    if device.share == 1:
        return _wrapped(lines, "  ")
    return [f"  {device.share:.1%} {device.name}: {device.summary}", *_wrapped(lines, "    ")]


def _wrapped(lines: list[str], indent: str) -> list[str]:
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line,
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + "    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
