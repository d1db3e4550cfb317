"""Chooses who leads a run, and where its devices work: the three engines by their names."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import FIRST_COME, RunSettings
from edgefl_simulation.coordinator import Coordinator
from edgefl_simulation.engines import Engine, Setup
from edgefl_simulation.pace import Pace, Steady
from edgefl_simulation.plans import Checkpoint, Plan
from edgefl_simulation.profiles import FleetProfile
from edgefl_simulation.served import ServedRun

__all__ = ["ENGINES", "Leader", "check_engine", "leader_of"]

ENGINES = ("local", "ray", "http")

Leader = Coordinator | ServedRun


def check_engine(
    engine: str, ray_address: str, pace: Pace, profile: FleetProfile | None, settings: RunSettings
) -> None:
    """Makes sure that an engine can do what is wanted.

    Args:
        engine: its name.
        ray_address: of the cluster; empty: not given.
        pace: how long devices take, in simulated seconds.
        profile: what devices are like; None: it was not given.
        settings: of the run.

    Raises:
        InvalidSettingError: it is none, or cannot.
    """
    if engine not in ENGINES:
        near = get_close_matches(engine, ENGINES, 1)
        raise InvalidSettingError(
            f"The engine expects one of {', '.join(ENGINES)}, got {engine!r:.80}.",
            hint=f"Did you mean {near[0]}?" if near else None,
        )
    if ray_address and engine != "ray":
        raise InvalidSettingError(f"An address of Ray has no meaning with the engine {engine}.", hint="Leave it out.")
    if engine == "http" and (pace != Steady() or profile is not None):
        raise InvalidSettingError(
            "With the engine http time and devices are real: how long they take, whether they drop out, and what they "
            "are like, cannot be set.",
            hint="Leave it out, or take the engine local.",
        )
    if engine == "http" and settings.selection != FIRST_COME:
        raise InvalidSettingError(
            f"With the engine http devices ask in the order of the simulation, got the selection {settings.selection}.",
            hint="Take the engine local.",
        )
    if engine == "http" and settings.schedule != "synchronous":
        raise InvalidSettingError(
            f"The engine http runs synchronous rounds only, got the schedule {settings.schedule!r:.80}.",
            hint="Take the engine local.",
        )


def leader_of(
    name: str, plan: Plan, engine: Engine, setup: Setup, folder: Path, workers: int, checkpoint: Checkpoint
) -> Leader:
    """Makes what leads a run.

    Args:
        name: of the engine.
        plan: what is run.
        engine: that was started by this name.
        setup: what all jobs have in common.
        folder: where it may keep what is gone on from.
        workers: how many processes; 0: one for each core.
        checkpoint: where the run goes on.
    """
    if name == "http":
        return ServedRun(plan, engine, checkpoint, setup, folder / "served", workers)
    return Coordinator(plan, engine, checkpoint)
