"""The contents of a profile, checked: kinds of devices with their shares, and attackers among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgefl_server.aggregation.hyperparameters import check_ranges, setting, values_of
from edgefl_simulation.attacks import Attack
from edgefl_simulation.profiles.availability import Always, Availability

__all__ = ["Attackers", "Compute", "DeviceProfile", "FleetProfile", "Network", "Reliability"]


@dataclass(frozen=True)
class Compute:
    """The speed of a device.

    Attributes:
        gflops: 10⁹ floating-point operations of a training step, as `edgefl inspect` counts them, in a second.
        step_overhead_ms: milliseconds of a step beside them.
        task_overhead_seconds: of a task beside its steps: loading the model, reading the data.
        memory_mb: MB that it has for a task; a task that needs more fails. 0: enough.
        watts: that it takes while it is at a task; 0: not known.
        spread: standard deviation of the logarithm of the speed from device to device.
    """

    gflops: float = setting(help="10⁹ floating-point operations a second.", lowest=1e-4, highest=1e6)
    step_overhead_ms: float = setting(0.0, help="Of a step beside them.", lowest=0, highest=1e6)
    task_overhead_seconds: float = setting(0.0, help="Of a task beside its steps.", lowest=0, highest=1e6)
    memory_mb: float = setting(0.0, help="For a task.", shown="enough", lowest=1, highest=1e9, off=0)
    watts: float = setting(0.0, help="While it is at a task.", shown="not known", lowest=0, highest=1e5)
    spread: float = setting(0.0, help="Of the logarithm of the speed.", lowest=0, highest=3)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Network:
    """The connection of a device.

    Attributes:
        down_mbit_s: 10⁶ bits that it receives in a second.
        up_mbit_s: that it sends.
        latency_ms: of a message to the server and back.
        spread: standard deviation of the logarithm of both rates from device to device.
    """

    down_mbit_s: float = setting(help="10⁶ bits a second that it receives.", lowest=1e-4, highest=1e6)
    up_mbit_s: float = setting(help="10⁶ bits a second that it sends.", lowest=1e-4, highest=1e6)
    latency_ms: float = setting(0.0, help="Of a message and its answer.", lowest=0, highest=1e6)
    spread: float = setting(0.0, help="Of the logarithm of both rates.", lowest=0, highest=3)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Reliability:
    """The ways in which a device fails.

    Attributes:
        drop_out: share of tasks in whose course it goes away and is not heard of again.
        crashes_per_hour: of training; it then starts again, and begins the task anew.
        restart_seconds: until it is there again.
    """

    drop_out: float = setting(0.0, help="Share of tasks that it drops.", lowest=0, highest=0.999)
    crashes_per_hour: float = setting(0.0, help="While it trains.", lowest=0, highest=3600)
    restart_seconds: float = setting(60.0, help="Until it is there again.", lowest=0, highest=1e6)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DeviceProfile:
    """A kind of device.

    Attributes:
        name: what it is called.
        compute: its speed.
        network: its connection.
        share: of the fleet.
        summary: one sentence.
        availability: when it is there.
        reliability: how it fails.
        sources: for each number, as ``compute.gflops``, where it is from.
    """

    name: str
    compute: Compute
    network: Network
    share: float = 1.0
    summary: str = ""
    availability: Availability = field(default_factory=Always)
    reliability: Reliability = field(default_factory=Reliability)
    sources: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All that the course of a task follows from, as plain values."""
        return {
            "name": self.name,
            "share": self.share,
            "compute": values_of(self.compute),
            "network": values_of(self.network),
            "availability": _rule(self.availability),
            "reliability": values_of(self.reliability),
        }


@dataclass(frozen=True)
class Attackers:
    """Attackers of one kind.

    Attributes:
        attack: what they do.
        share: of the devices among which they are.
        among: the name of a kind of device; empty: all of them.
    """

    attack: Attack
    share: float
    among: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**_rule(self.attack), "share": self.share, "among": self.among}


@dataclass(frozen=True)
class FleetProfile:
    """A whole profile.

    Attributes:
        name: of its file, without what stands behind a dot.
        devices: its kinds of devices, whose shares add up to 1; none: all take the time of `edgefl_simulation.Steady`.
        attackers: those among them.
        summary: one sentence.
    """

    name: str
    devices: tuple[DeviceProfile, ...]
    attackers: tuple[Attackers, ...] = ()
    summary: str = ""

    def to_json(self) -> dict[str, Any]:
        """All that a simulation follows from, as plain values."""
        return {
            "devices": [each.to_json() for each in self.devices],
            "attackers": [each.to_json() for each in self.attackers],
        }


def _rule(rule: Any) -> dict[str, Any]:
    """A rule of some kind as plain values."""
    plain = {each.name: getattr(rule, each.name) for each in dataclasses.fields(rule) if each.repr}
    return {"kind": rule.kind, **plain}
