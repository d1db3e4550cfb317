"""What an operator decides about a run, checked once and never changed afterwards."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgefl.codecs import codec_names
from edgefl.errors import InvalidSettingError

__all__ = ["STRATEGIES", "RunSettings"]

STRATEGIES = ("fedavg", "fedprox", "scaffold", "feddyn", "fedsgd")

_DEFAULT_OVER_SELECTION = 1.3
"""Select 130 % of the target, as Bonawitz et al. 2019 (Towards Federated Learning at Scale, section 4.2) do."""
_LARGEST = 1e30
_LARGEST_RATE = 1e6
"""No training survives a step of that length."""
_SMALLEST_NORM = 1e-6
"""A shorter update changes no float32 weight."""
_SHORTEST_SECONDS = 1.0
"""No device fetches, trains and sends in less."""
_LARGEST_OVER_SELECTION = 10
_FAILURES_PER_DEVICE_ASKED = 10
"""More devices than that never fail in one round: a limit above is none."""
"""Larger numbers are mistakes, and sums of them leave float32."""
_SMALLEST = 1e-30
"""Less is 0 in the float32 of a task."""
_SMALLEST_FAILURES = 3
"""A round of one device does not give up because of the first one that it asks."""
_LEASES_PER_TASK = 12
_CLIP_TOLERANCE = 1.01
"""A delta that was clipped and then rounded to float16 may exceed the bound by about 0.05 %."""


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run.

    Attributes:
        rounds: how many rounds; a failed round counts.
        target: outcomes that close a round.
        minimum: outcomes that suffice once the deadline has passed or too many devices have failed; 0: the target.
        over_selection: devices asked per outcome wanted; 0 stands for 1.3 when there is a deadline, else for 1.
            Without a deadline every selected device is waited for (its lease bounds how long), so that asking more
            would only waste their work.
        deadline_seconds: a round closes so long after its first task was handed out, or after it was opened when no
            device comes at all; 0: never.
        max_failures: a round gives up when so many devices have refused for good or failed; 0: as many as it selects,
            and at least 3.
        lease_seconds: a device that is silent for so long may lose its place to another.
        task_seconds: a task ends so long after it was handed out, however often its lease is renewed; 0: twelve leases.
        epochs: passes over the local data.
        max_steps: batches per task; 0: no limit.
        learning_rate: None: the model's own.
        batch_size: rows per step, at most the model's; 0: the model's.
        codec: how devices write their deltas.
        clip_norm: devices clip the delta's weight section to this L2 norm; 0: they do not.
        max_examples: a device's num_examples counts for at most this many: it is the device's word.
        max_weight_ratio: it also counts for at most so many times the median of the round's devices; among three or
            more, who says more than that, or is beyond four times the median, for no more than all others together.
            0: neither.
        max_update_norm: an outcome whose weight section has a larger L2 norm is refused. The default only stops
            what no training produces.
        seed: all randomness of the run derives from it.
        strategy: one of `STRATEGIES`.
        mu: FedProx's mu or FedDyn's alpha; 0 for the others.
        server_learning_rate: of SCAFFOLD's and FedSGD's server step; None: 1 for SCAFFOLD, the model's for FedSGD.
        schedule: who gets which task when, by the name under which it is registered.
    """

    rounds: int
    target: int
    minimum: int = 0
    over_selection: float = 0.0
    deadline_seconds: float = 0.0
    max_failures: int = 0
    lease_seconds: float = 300.0
    task_seconds: float = 0.0
    epochs: int = 1
    max_steps: int = 0
    learning_rate: float | None = None
    batch_size: int = 0
    codec: str = "float32"
    clip_norm: float = 0.0
    max_examples: int = 100_000
    max_weight_ratio: float = 10.0
    max_update_norm: float = 1e6
    seed: int = 0
    strategy: str = "fedavg"
    mu: float = 0.0
    server_learning_rate: float | None = None
    schedule: str = "synchronous"

    def __post_init__(self) -> None:
        self._require("rounds", self.rounds, 1, 1_000_000)
        self._require("target", self.target, 1, 1_000_000)
        self._require("minimum", self.minimum, 0, self.target)
        self._require("max_failures", self.max_failures, 0, 10_000_000)
        self._require("deadline_seconds", self.deadline_seconds, 0, 31e6)
        self._require("lease_seconds", self.lease_seconds, 1, 31e6)
        self._require("task_seconds", self.task_seconds, 0, 31e6)
        self._require("epochs", self.epochs, 1, 1_000_000)
        self._require("max_steps", self.max_steps, 0, 2**31)
        self._require("batch_size", self.batch_size, 0, 2**31)
        self._require_positive("clip_norm", self.clip_norm, off=True)
        self._require("max_examples", self.max_examples, 1, 2**53)
        self._require_positive("max_update_norm", self.max_update_norm)
        self._require("seed", self.seed, 0, 2**63 - 1)
        if self.over_selection != 0:
            self._require("over_selection", self.over_selection, 1, 100)
        if self.max_weight_ratio != 0:
            self._require("max_weight_ratio", self.max_weight_ratio, 1, 1e6)
        if self.learning_rate is not None:
            self._require_positive("learning_rate", self.learning_rate, off=True)
        if self.codec not in codec_names():
            raise InvalidSettingError(f"Codec expects one of {', '.join(codec_names())}, got {self.codec!r}.")
        self._check_combinations()
        self._check_strategy()

    def _check_combinations(self) -> None:
        if self.clip_norm > self.max_update_norm:
            raise InvalidSettingError(
                f"--clip-norm {self.clip_norm:g} is above --max-update-norm {self.max_update_norm:g}: devices that "
                "clip as they are told would be refused.",
                hint="Give a larger --max-update-norm, or a smaller --clip-norm.",
            )
        if self.deadline_seconds and self.task_seconds >= self.deadline_seconds:
            raise InvalidSettingError(
                f"--task-seconds {self.task_seconds:g} has no meaning with --deadline {self.deadline_seconds:g}: the "
                "round closes before.",
                hint="Leave it out, or make it shorter than the deadline.",
            )

    def require_meaning(self) -> None:
        """Refuses what can be computed with but is a mistake. For new runs: those that were created before go on.

        Raises:
            InvalidSettingError: a value that no operator can want.
        """
        for name, seconds in (("deadline_seconds", self.deadline_seconds), ("task_seconds", self.task_seconds)):
            if seconds:
                self._require(name, seconds, _SHORTEST_SECONDS, 31e6, "These are seconds; 0 stands for no limit.")
        most = _FAILURES_PER_DEVICE_ASKED * self.cohort_size
        self._require(
            "max_failures", self.max_failures, 0, most, f"A round asks {self.cohort_size} devices; leave it out."
        )
        if self.over_selection:
            hint = "1.3 asks 13 devices for 10 outcomes."
            self._require("over_selection", self.over_selection, 1, _LARGEST_OVER_SELECTION, hint)
        norm = "A shorter update changes no weight."
        self._require("max_update_norm", self.max_update_norm, _SMALLEST_NORM, _LARGEST, norm)
        if self.clip_norm:
            self._require("clip_norm", self.clip_norm, _SMALLEST_NORM, _LARGEST, norm)
        rates = (("learning_rate", self.learning_rate), ("server_learning_rate", self.server_learning_rate))
        for name, rate in rates:
            if rate == 0:
                raise InvalidSettingError(
                    f"--{name.replace('_', '-')} expects a number above 0, got 0: everything would stay as it is.",
                    hint="Leave it out for the usual one.",
                )
            if rate is not None:
                self._require(name, rate, _SMALLEST, _LARGEST_RATE, "Usual ones are below 10.")

    def _check_strategy(self) -> None:
        if self.strategy not in STRATEGIES:
            near = difflib.get_close_matches(self.strategy.lower(), STRATEGIES)
            raise InvalidSettingError(
                f"--strategy expects one of {', '.join(STRATEGIES)}, got {self.strategy!r:.80}.",
                hint=f"Do you mean {' or '.join(near)}?" if near else None,
            )
        self._require("mu", self.mu, 0, _LARGEST)
        if self.server_learning_rate is not None:
            self._require("server_learning_rate", self.server_learning_rate, 0, _LARGEST)
        name = self.strategy
        # What has no effect is refused, so that nobody believes that it had one.
        pointless = {
            "--mu": self.mu != 0 and name not in ("fedprox", "feddyn"),
            "--server-learning-rate": self.server_learning_rate is not None and name not in ("scaffold", "fedsgd"),
            "--epochs, --max-steps and --learning-rate": name == "fedsgd"
            and (self.epochs != 1 or self.max_steps != 0 or self.learning_rate is not None),
            "--batch-size": name == "fedsgd" and self.batch_size != 0,
        }
        for option, given in pointless.items():
            if given:
                raise InvalidSettingError(f"{option} has no meaning with --strategy {name}.", hint="Leave it out.")
        if name in ("fedprox", "feddyn") and not self.mu >= _SMALLEST:
            raise InvalidSettingError(f"--strategy {name} expects --mu above 0.", hint="Start with --mu 0.01.")
        if self.server_learning_rate == 0:
            raise InvalidSettingError("--server-learning-rate expects a number above 0, got 0.")
        if name in ("scaffold", "feddyn") and self.clip_norm:
            raise InvalidSettingError(
                f"--clip-norm does not go with --strategy {name}: its corrections presume what was really trained.",
                hint="Leave it out, or use fedavg or fedprox.",
            )

    def _require_positive(self, name: str, value: float, *, off: bool = False) -> None:
        """Requires a number that is not 0 in the float32 of a task either; ``off``: just 0 stands for none."""
        if not (off and value == 0):
            self._require(name, value, _SMALLEST, _LARGEST)

    def _require(self, name: str, value: float, lowest: float, highest: float, hint: str | None = None) -> None:
        if math.isnan(value) or not lowest <= value <= highest:
            option = "--deadline" if name == "deadline_seconds" else "--" + name.replace("_", "-")
            raise InvalidSettingError(
                f"{option} expects a number from {lowest:g} to {highest:g}, got {value:g}.",
                hint="The minimum is at most the target." if name == "minimum" else hint,
            )

    @property
    def effective_minimum(self) -> int:
        """Outcomes without which a round fails."""
        return self.minimum or self.target

    @property
    def cohort_size(self) -> int:
        """Devices that work on a round at the same time, or have done so."""
        factor = self.over_selection or (_DEFAULT_OVER_SELECTION if self.deadline_seconds else 1.0)
        # 1.3 × 10 is 13.000000000000002 in floats and must not become 14.
        return max(self.target, math.ceil(round(self.target * factor, 6)))

    @property
    def effective_max_failures(self) -> int:
        """Failed devices at which a round gives up."""
        return self.max_failures or max(self.cohort_size, _SMALLEST_FAILURES)

    @property
    def effective_task_seconds(self) -> float:
        """The longest that a task may take."""
        return self.task_seconds or _LEASES_PER_TASK * self.lease_seconds

    @property
    def norm_bound(self) -> float:
        """Largest L2 norm of a delta's weight section that is accepted."""
        return self.clip_norm * _CLIP_TOLERANCE if self.clip_norm else self.max_update_norm

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RunSettings:
        """Settings from plain values; names that this version does not know are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in known})
