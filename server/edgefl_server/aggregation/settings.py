"""The settings that an operator chooses for a run, checked once and never changed afterwards.

Every field is a `setting`, and so is every hyperparameter of every strategy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edgefl.algorithms import Algorithm
from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation.believing import Believing
from edgefl_server.aggregation.courses import Courses
from edgefl_server.aggregation.hyperparameters import (
    NORM_HINT,
    NORMS,
    SMALLEST,
    STEP_HINT,
    STEPS,
    SettingError,
    build,
    check_ranges,
    check_usual,
    setting,
    settings_of,
    values_of,
)
from edgefl_server.aggregation.kinds import KINDS, KindSettings
from edgefl_server.aggregation.patience import Patience
from edgefl_server.aggregation.selecting import Selecting
from edgefl_server.aggregation.staleness import BUFFERED, Buffering
from edgefl_server.aggregation.strategies import STRATEGIES, Demand, Strategy
from edgefl_server.aggregation.update_codecs import WHOLE, check_codec, check_down_codec, check_name

__all__ = ["RunSettings", "demand_for", "strategy_for"]

_DEFAULT_OVER_SELECTION = 1.3
"""Select 130 % of the target, as Bonawitz et al. 2019 (Towards Federated Learning at Scale, section 4.2) do."""
_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.0, 31e6
"""No device fetches, trains and sends in less than the one; the other is a year."""
_SECONDS_HINT = "These are seconds; 0 stands for no limit."
_FAILURES_PER_DEVICE_ASKED = 10
"""More devices than that never fail in one round: a limit above is none."""
_SMALLEST_FAILURES = 3
"""A round of one device does not give up because of the first one that it asks."""
_LEASES_PER_TASK = 12
_CLIP_TOLERANCE = 1.01
"""A delta that was clipped and then rounded to float16 may exceed the bound by about 0.05 %."""
_RESERVED = ("model", "population", "name", "state", "server", "format", "help")
"""Names of what a run is created with beside its settings."""


@dataclass(frozen=True)
class RunSettings(Believing, Buffering, Courses, KindSettings, Patience, Selecting):
    """The settings of a run.

    Attributes:
        rounds: how many rounds; a failed round counts.
        target: outcomes that close a round.
        strategy: a name of `STRATEGIES`.
        hyperparameters: the strategy's, by name; those that are not given are filled in.
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
        codec: how devices write their deltas; ``auto``: what suits the model's size, once it is known.
        down_codec: how devices that hold earlier weights are told how these have changed; float32: they fetch the new
            ones.
        clip_norm: devices clip the delta's weight section to this L2 norm; 0: they do not.
        seed: all randomness of the run derives from it; None: whoever creates the run draws one.
        schedule: who gets which task when, by the name under which it is registered.

    What is asked beside training, `KindSettings` says.
    """

    rounds: int = setting(help="How many rounds.", lowest=1, highest=1_000_000)
    target: int = setting(help="Outcomes that close a round.", lowest=1, highest=1_000_000)
    strategy: str = setting("fedavg", help="How updates become new weights: {names}.")
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    minimum: int = setting(
        0, help="Outcomes that suffice at the deadline.", shown="the target", lowest=0, highest=1_000_000
    )
    over_selection: float = setting(
        0.0,
        help="Devices asked per outcome wanted.",
        shown="1.3 with a deadline, else 1",
        lowest=1,
        highest=100,
        off=0,
        usual=(1, 10),
        why="1.3 asks 13 devices for 10 outcomes.",
    )
    deadline_seconds: float = setting(
        0.0,
        help="Seconds that a round waits for outcomes.",
        shown="for ever",
        lowest=0,
        highest=_LONGEST_SECONDS,
        off=0,
        usual=(_SHORTEST_SECONDS, _LONGEST_SECONDS),
        why=_SECONDS_HINT,
    )
    max_failures: int = setting(
        0,
        help="A round gives up when so many devices failed.",
        shown="as many as it asks, and at least 3",
        lowest=0,
        highest=10_000_000,
    )
    lease_seconds: float = setting(
        300.0, help="Silence after which a device may lose its place.", lowest=1, highest=_LONGEST_SECONDS
    )
    task_seconds: float = setting(
        0.0,
        help="The longest that a task may take.",
        shown="12 leases",
        lowest=0,
        highest=_LONGEST_SECONDS,
        off=0,
        usual=(_SHORTEST_SECONDS, _LONGEST_SECONDS),
        why=_SECONDS_HINT,
    )
    epochs: int = setting(1, help="Passes over each device's data.", lowest=1, highest=1_000_000)
    max_steps: int = setting(0, help="Batches per task.", shown="no limit", lowest=0, highest=2**31)
    learning_rate: float | None = setting(
        None,
        help="Of the devices' steps.",
        shown="the model's",
        lowest=SMALLEST,
        off=0,
        usual=STEPS,
        why=STEP_HINT,
    )
    batch_size: int = setting(0, help="Rows per step.", shown="the model's", lowest=0, highest=2**31)
    codec: str = setting("float32", help="How devices write updates: {names}.")
    down_codec: str = setting(
        WHOLE, help="How devices are told how the weights have changed.", shown="the whole weights each time"
    )
    clip_norm: float = setting(
        0.0,
        help="Devices clip updates to this L2 norm.",
        shown="no clipping",
        lowest=SMALLEST,
        off=0,
        usual=NORMS,
        why=NORM_HINT,
    )
    seed: int | None = setting(None, help="Makes the run repeatable.", shown="drawn", lowest=0, highest=2**63 - 1)
    schedule: str = setting("synchronous", help="Who gets which task when: {names}.")

    def __post_init__(self) -> None:
        check_ranges(self)
        self.check_staleness()
        self.check_courses()
        self.check_patience()
        self.check_selection()
        if self.minimum > self.target:
            raise SettingError(
                f"{{minimum}} expects a number from 0 to {self.target}, got {self.minimum}.",
                hint="It is at most the {target}.",
            )
        check_name(self.codec)
        check_down_codec(self.down_codec)
        self._check_combinations()
        self._check_kind(self.effective_minimum)
        strategy = _strategy(self.strategy, self.hyperparameters)
        self._check_strategy(strategy)
        if not self.makes_weights:
            self._check_bare(strategy)
        demand = strategy.demand
        check_codec(
            self.codec, self.strategy, demand.sections, demand.correction, self.clip_norm, robust=strategy.is_robust
        )
        object.__setattr__(self, "hyperparameters", values_of(strategy))

    @classmethod
    def of(cls, **values: Any) -> RunSettings:
        """Settings from those of the run and the hyperparameters of its strategy side by side.

        Args:
            values: by name; None stands for one that is not given.

        Raises:
            SettingError: a value is outside its range, contradicts another or has no meaning.
        """
        own = {each.name for each in fields(cls)}
        given = {name: value for name, value in values.items() if value is not None}
        hyperparameters = {name: value for name, value in given.items() if name not in own}
        return cls(**{name: value for name, value in given.items() if name in own}, hyperparameters=hyperparameters)

    def _check_combinations(self) -> None:
        if self.clip_norm > self.max_update_norm:
            raise SettingError(
                f"{{clip_norm}} {self.clip_norm:g} is above {{max_update_norm}} {self.max_update_norm:g}: devices that "
                "clip as they are told would be refused.",
                hint="Give a larger {max_update_norm}, or a smaller {clip_norm}.",
            )
        if self.deadline_seconds and self.task_seconds >= self.deadline_seconds:
            raise SettingError(
                f"{{task_seconds}} {self.task_seconds:g} has no meaning with {{deadline_seconds}} "
                f"{self.deadline_seconds:g}: the round closes before.",
                hint="Leave it out, or make it shorter than the deadline.",
            )

    def _check_bare(self, strategy: Strategy) -> None:
        """Refuses hyperparameters where no strategy does anything."""
        usual = values_of(_strategy(self.strategy, {}))
        for name, value in values_of(strategy).items():
            if value != usual[name]:
                raise SettingError(f"{{{name}}} has no meaning with {{kind}} {self.kind}.", hint="Leave it out.")

    def _check_strategy(self, strategy: Strategy) -> None:
        # What has no effect is refused, so that nobody believes that it had one.
        defaults = {each.name: each.default for each in settings_of(RunSettings)}
        for name in strategy.unused:
            for each, default in defaults.items():  # with it goes what changes it by version
                if each.startswith(name) and getattr(self, each) != default:
                    raise _pointless(each, self.strategy)
        for name, why in strategy.excluded.items():
            if name in defaults and getattr(self, name) != defaults[name]:
                raise _excluded(name, self.strategy, why)
        for name, why in strategy.needed.items():
            if not getattr(self, name):
                raise SettingError(
                    f"{{strategy}} {self.strategy} expects a {{{name}}}: {why}.", hint=f"Start with {{{name}}} 0.1."
                )
        if self.effective_minimum < strategy.fewest:
            raise SettingError(
                f"{{strategy}} {self.strategy} needs {strategy.fewest} updates a fold as it is set, and "
                f"{{minimum}} or {{target}} lets one have {self.effective_minimum}.",
                hint="Ask for more devices, or expect fewer bad ones ({byzantine}).",
            )

    def require_meaning(self) -> None:
        """Refuses what can be computed with but is a mistake. For new runs: those that were created before go on.

        Raises:
            SettingError: a value that no operator can want.
        """
        check_usual(self)
        strategy = strategy_for(self)
        check_usual(strategy)
        if strategy.of_buffers and self.schedule == RunSettings.schedule:
            raise SettingError(
                f"{{strategy}} {self.strategy} merges updates as they come, and {{schedule}} {self.schedule} waits for "
                "all of a round: nothing would be left of it but an average.",
                hint="Give {schedule} buffered, or take fedavg.",
            )
        most = _FAILURES_PER_DEVICE_ASKED * self.cohort_size
        if self.max_failures > most:
            raise SettingError(
                f"{{max_failures}} expects a number from 0 to {most}, got {self.max_failures}.",
                hint=f"A round asks {self.cohort_size} devices; leave it out.",
            )
        if self.learning_rate == 0:
            raise SettingError(
                "{learning_rate} expects a number above 0, got 0: everything would stay as it is.",
                hint="Leave it out for the usual one.",
            )

    @property
    def effective_minimum(self) -> int:
        """Outcomes without which a round fails."""
        return self.minimum or self.target

    @property
    def cohort_size(self) -> int:
        """Devices that work on a round at the same time, or have done so; with a buffer, those that work at a time."""
        if self.schedule == BUFFERED:
            return self.tasks_at_once(self.target)
        factor = self.over_selection or (_DEFAULT_OVER_SELECTION if self.deadline_seconds else 1.0)
        # 1.3 × 10 is 13.000000000000002 in floats and must not become 14.
        return max(self.target, math.ceil(round(self.target * factor, 6)))

    @property
    def effective_max_failures(self) -> int:
        """Failed devices at which a round gives up."""
        return self.max_failures or max(self.cohort_size, _SMALLEST_FAILURES)

    @property
    def effective_seed(self) -> int:
        """The seed; 0 where nobody has drawn one."""
        return self.seed or 0

    @property
    def effective_task_seconds(self) -> float:
        """The longest that a task may take."""
        return self.task_seconds or _LEASES_PER_TASK * self.lease_seconds

    def learning_rate_from(self, version: int) -> float | None:
        """The learning rate of tasks that start from a version; None: the model's own."""
        if self.learning_rate is None or not self.changes_learning_rate:
            return self.learning_rate
        return self.learning_rate * self.learning_rate_share(version, self.rounds_from(version, self.rounds))

    def epochs_of(self, version: int) -> int:
        """The passes over the local data of tasks that start from a version."""
        return self.epochs_from(self.epochs, version, self.rounds_from(version, self.rounds))

    @property
    def norm_bound(self) -> float:
        """Largest L2 norm of a delta's weight section that is accepted."""
        return self.clip_norm * _CLIP_TOLERANCE if self.clip_norm else self.max_update_norm

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values, the strategy's hyperparameters among them."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        if not own["earlier_rounds"]:  # as of most runs, and of all that were begun before it could be told
            del own["earlier_rounds"]
        return {**own, **own.pop("hyperparameters")}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RunSettings:
        """Settings from plain values; names that this version or the strategy does not know are ignored."""
        known = {each.name for each in settings_of(cls)}
        strategy = document.get("strategy", "fedavg")
        known |= {each.name for each in settings_of(STRATEGIES.get(strategy))}
        earlier = tuple((version, rounds) for version, rounds in document.get("earlier_rounds", ()))
        return cls.of(**{name: value for name, value in document.items() if name in known}, earlier_rounds=earlier)


def strategy_for(settings: RunSettings) -> Strategy:
    """The strategy of a run."""
    return _strategy(settings.strategy, settings.hyperparameters)


def demand_for(settings: RunSettings) -> Demand:
    """Says what a run asks of devices."""
    return strategy_for(settings).demand if settings.makes_weights else Demand(Algorithm(kind=KINDS[settings.kind]))


def _strategy(name: str, hyperparameters: Mapping[str, Any]) -> Strategy:
    if name not in STRATEGIES.names():
        raise SettingError(
            f"{{strategy}} expects one of {', '.join(STRATEGIES.names())}, got {name!r:.80}.",
            hint=STRATEGIES.nearest(name),
        )
    chosen = STRATEGIES.get(name)
    known = {each.name: each for each in settings_of(chosen)}
    for unknown in sorted(hyperparameters.keys() - known.keys()):
        if unknown in chosen.excluded:
            raise _excluded(unknown, name, chosen.excluded[unknown])
        raise _pointless(unknown, name)
    for each in known.values():
        value = hyperparameters.get(each.name)
        above_0 = each.possible is not None and each.possible.lowest == SMALLEST
        if each.required and (value is None or (above_0 and 0 <= value < SMALLEST)):
            needed = f"{{{each.name}}} above 0" if above_0 else f"a {{{each.name}}}"
            raise SettingError(f"{{strategy}} {name} expects {needed}.", hint=each.hint)
    built: Strategy = build(chosen, hyperparameters)
    return built


def _excluded(name: str, strategy: str, why: str) -> SettingError:
    return SettingError(
        f"{{{name}}} does not go with {{strategy}} {strategy}: {why}.", hint="Leave it out, or use fedavg or fedprox."
    )


def _pointless(name: str, strategy: str) -> SettingError:
    kinds: list[type] = [RunSettings, *map(STRATEGIES.get, STRATEGIES.names())]
    known = {each.name for kind in kinds for each in settings_of(kind)}
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=1)
        return SettingError(f"There is no setting {{{name}}}.", hint=f"Did you mean {{{near[0]}}}?" if near else None)
    return SettingError(f"{{{name}}} has no meaning with {{strategy}} {strategy}.", hint="Leave it out.")


def _check_names(name: str, entry: object) -> None:
    """Refuses a strategy of which a hyperparameter is called like something else."""
    assert isinstance(entry, type)
    taken = {each.name: "a run" for each in fields(RunSettings)} | dict.fromkeys(_RESERVED, "a run")
    for each in settings_of(entry):
        if each.name in taken:
            raise InvalidSettingError(f"its hyperparameter {each.name} is called like what {taken[each.name]} has.")
        for other in STRATEGIES.names():
            for theirs in settings_of(STRATEGIES.get(other)):
                if theirs.name == each.name and theirs.kind is not each.kind:
                    raise InvalidSettingError(
                        f"its hyperparameter {each.name} is {each.kind.__name__}, that of {other} is "
                        f"{theirs.kind.__name__}."
                    )


STRATEGIES.require(_check_names)
