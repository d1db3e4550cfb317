"""The settings of a simulation, and what they must not contradict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import is_share
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES
from edgefl_server.aggregation import STRATEGIES, RunSettings, SettingError
from edgefl_simulation.data import OWNER
from edgefl_simulation.evaluating import Personalisation
from edgefl_simulation.fleet import ROOT_DEVICE
from edgefl_simulation.pace import Pace, Steady
from edgefl_simulation.preparing import Division
from edgefl_simulation.profiles import FleetProfile

__all__ = [
    "DEFAULT_SEED",
    "MOST_WORKERS",
    "Simulation",
    "check_cohort",
    "check_counts",
    "check_personalised",
    "check_profile",
    "check_until",
    "written_down",
]

_MOST = 2**53
"""The largest number of anything."""
MOST_WORKERS = 1024
DEFAULT_SEED = 1
"""A simulation repeats itself unless it is told another one."""


@dataclass(frozen=True)
class Simulation:
    """The settings of a simulation, beside the run's own settings.

    Attributes:
        model: as `model_file` takes it.
        data: as `load_data` takes it.
        settings: of the run and of its strategy, as `RunSettings.of` takes them; ``target`` is the cohort.
        division: how rows fall on devices.
        pace: when devices are there, and how long they take, in simulated seconds, where no profile says it.
        owner: the array, or column, that says whose each row is.
        minimum_examples: a device with fewer takes no part.
        evaluate_every: so many rounds; the last one is evaluated in any case.
        evaluate_devices: how many devices are asked how good the weights are for them; None: as many as a cohort has.
        personalise: what they train before they are asked once more; None: nothing.
        until: metrics on the held-out rows that end the run once one of them is reached.
        workers: processes that train; 0: one for each core. One is this process itself.
        runtime: the interpreter, as `TrainableModel` takes it.
        features: the arrays, or columns, that are the model's input; none: all but the target.
        target: the array, or column, that is the model's target; empty: as `load_data` finds it.
        engine: where devices work, a name of `ENGINES`.
        ray_address: of the cluster, for the engine ray; empty: as `RayConnection` finds it.
        profile: what kinds of devices there are, and attackers among them.
    """

    model: Any
    data: Any
    settings: Mapping[str, Any]
    division: Division = field(default_factory=Division)
    pace: Pace = field(default_factory=Steady)
    owner: str = OWNER
    minimum_examples: int = MINIMUM_EXAMPLES
    evaluate_every: int = 1
    evaluate_devices: int | None = None
    personalise: Personalisation | None = None
    until: Mapping[str, float] = field(default_factory=dict)
    workers: int = 0
    runtime: str = "auto"
    features: tuple[str, ...] = ()
    target: str = ""
    engine: str = "local"
    ray_address: str = ""
    profile: FleetProfile | None = None

    @property
    def run_settings(self) -> Mapping[str, Any]:
        """The settings with what the division makes: the root device, and the tests that a strategy goes by."""
        made: dict[str, Any] = {"root_device": ROOT_DEVICE} if self.division.root_rows else {}
        strategy = self.settings.get("strategy", RunSettings.strategy)
        if strategy in STRATEGIES.names() and "local_test" in STRATEGIES.get(strategy).needed:
            made["local_test"] = self.division.local_test
        return {**self.settings, **made}


def check_cohort(wanted: Simulation, settings: RunSettings, devices: int) -> None:
    """Makes sure that there are enough devices, and that they are to train."""
    if wanted.evaluate_devices is not None and wanted.evaluate_devices > devices:
        raise SettingError(
            f"{{evaluate_devices}} expects a number from 0 to {devices}, which is the fleet, got "
            f"{wanted.evaluate_devices}.",
            hint="Leave it out, or take more devices.",
        )
    if not settings.makes_weights:
        raise InvalidSettingError(
            f"A simulation trains; {settings.kind} is a kind of run of a server.",
            hint="`edgefl data statistics`, in Python `edgefl.federated_statistics`, sums up the data of a fleet."
            if settings.kind == "statistics"
            else "`evaluate_every` evaluates the weights of a simulation on its devices.",
        )
    if settings.target > devices:
        raise InvalidSettingError(
            f"The cohort has {settings.target} devices, and the fleet {devices}.",
            hint="Take a smaller cohort, or more devices.",
        )


def check_counts(wanted: Simulation) -> None:
    """Makes sure that what is counted can be."""
    counts: dict[str, tuple[Any, int, int]] = {
        "workers": (wanted.workers, 0, MOST_WORKERS),
        "evaluate_every": (wanted.evaluate_every, 0, _MOST),
        "evaluate_devices": (0 if wanted.evaluate_devices is None else wanted.evaluate_devices, 0, _MOST),
        "minimum_examples": (wanted.minimum_examples, 1, _MOST),
        "root_rows": (wanted.division.root_rows, 0, _MOST),
    }
    for name, (count, least, most) in counts.items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not least <= count <= most:
            raise SettingError(f"{{{name}}} expects a whole number from {least} to {most}, got {count!r:.80}.")
    if 0 < wanted.division.root_rows < wanted.minimum_examples:
        raise SettingError(
            f"{{root_rows}} {wanted.division.root_rows} is below {{minimum_examples}} {wanted.minimum_examples}: the "
            "root device would take no part.",
            hint="Give more {root_rows}.",
        )


def check_personalised(wanted: Simulation) -> None:
    """Makes sure that devices keep rows to be tested on."""
    if wanted.personalise is not None and not wanted.division.local_test:
        raise SettingError(
            "{personalise} tests devices on rows that they did not train on, and {local_test} is 0.",
            hint="Give a {local_test}, as 0.2.",
        )


def check_profile(wanted: Simulation) -> None:
    """Makes sure that one thing only says how long devices take."""
    if wanted.profile is not None and wanted.profile.devices and wanted.pace != Steady():
        raise SettingError(
            "{profile} says how long devices take, and so do {step_seconds}, {overhead_seconds} and {drop_out} (in "
            "Python: a pace).",
            hint="Give one of them.",
        )


def check_until(until: Mapping[str, float], manifest: ModelManifest) -> None:
    """Makes sure that the model has the metrics that end a run."""
    known = ["loss", *(metric.name for metric in manifest.metrics)]
    value: Any
    whole: Any = until
    if not isinstance(whole, Mapping):
        raise SettingError(
            f"{{until}} expects metrics and their values, got {whole!r:.80}.", hint="As {'accuracy': 0.9}."
        )
    for name, value in until.items():
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InvalidSettingError(f"The value of {name!r:.80} that ends a run expects a number, got {value!r:.80}.")
        if name not in known:
            raise InvalidSettingError(f"The model has no metric {name!r} to reach a value; it has {', '.join(known)}.")
        if value > 1 and any(metric.name == name and is_share(metric) for metric in manifest.metrics):
            raise InvalidSettingError(
                f"The value of {name!r} that ends a run expects at most 1, got {value:g}: it is never more.",
                hint="Of 90 % it is 0.9.",
            )


def written_down(wanted: Simulation, settings: RunSettings, manifest: ModelManifest, model: str) -> dict[str, Any]:
    """All that the results follow from, as plain values, but for the data itself.

    Args:
        wanted: the simulation.
        settings: of its run, settled.
        manifest: of the model file.
        model: the file's hash.
    """
    division, run = asdict(replace(wanted.division, partition="")), settings.to_json()
    if not division["root_rows"]:  # as folders have it that were begun before there was such a device
        del division["root_rows"]
    return {
        **{name: value for name, value in run.items() if name != "target"},
        "cohort": run["target"],
        # Whoever leaves it out gets the file's, and goes on with what somebody began who gave that number.
        "batch_size": run["batch_size"] or manifest.batch_size,
        "model": model,
        **division,
        "partition": str(wanted.division.partition),
        "pace": str(wanted.pace),
        "profile": None if wanted.profile is None else wanted.profile.to_json(),
        "owner": wanted.owner,
        "feature_columns": list(wanted.features),
        "target_column": wanted.target,
        "minimum_examples": wanted.minimum_examples,
        "evaluate_every": wanted.evaluate_every,
        "evaluate_devices": wanted.evaluate_devices,
        **({} if wanted.personalise is None else {"personalise": asdict(wanted.personalise)}),
        "until": dict(wanted.until),
        "engine": wanted.engine,
    }
