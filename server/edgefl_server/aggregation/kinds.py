"""Settings of what a run asks of devices beside training: to evaluate weights, and to sum up their data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgefl.wire.vocabulary import TaskKind
from edgefl_server.aggregation.hyperparameters import SMALLEST, SettingError, setting, settings_of

__all__ = ["KINDS", "QUANTILES_FROM", "SHOWN_FROM", "KindSettings"]

TRAIN = "train"
KINDS: Mapping[str, TaskKind] = {
    TRAIN: TaskKind.TRAIN,
    "evaluate": TaskKind.EVALUATE,
    "statistics": TaskKind.STATISTICS,
}
"""The kinds of work that a run may ask for. Only the first makes weights; the kind of its tasks is its strategy's."""
SHOWN_FROM = 5
"""Between two devices, each knows the other's part of a sum, and mean and deviation tell both values; of five, four
would have to put together what they know."""
QUANTILES_FROM = 20
"""A quantile is the value of some device: from twenty on two are beyond a tenth, and none stands at the end alone."""
_OF_ANY_KIND = (
    "kind",
    "rounds",
    "target",
    "minimum",
    "over_selection",
    "deadline_seconds",
    "max_failures",
    "lease_seconds",
    "task_seconds",
    "seed",
    "selection",
    "selection_window",
    "selection_memory_bytes",
    "shown_from",
    "quantiles_from",
)
"""Settings with a meaning where nothing is trained too."""
_OF_EVALUATING = ("evaluate_cohort", "shown_from", "quantiles_from")
"""Settings without a meaning where training is all that is done."""


@dataclass(frozen=True, kw_only=True)
class KindSettings:
    """The settings that say what is asked beside training.

    Attributes:
        kind: what devices are asked to do: a name of `KINDS`.
        evaluate_every: how good the weights are for devices is measured after every so many rounds, before the first
            and after the last, by tasks of their own beside training; 0: never.
        evaluate_cohort: outcomes that are wanted each time; 0: the target.
        local_test: the share of its examples that each device does not train on, but evaluates on: the received
            weights before it trains, and its own afterwards; 0: none.
        shown_from: figures in which single devices could be seen - statistics of data, and how a metric spreads over
            devices - are of at least so many.
        quantiles_from: quantiles over devices are of at least so many.
    """

    kind: str = setting(TRAIN, help="What devices are asked to do: {names}.")
    evaluate_every: int = setting(
        0, help="Rounds between evaluations on devices.", shown="never", lowest=0, highest=1_000_000
    )
    evaluate_cohort: int = setting(0, help="Outcomes wanted of each.", shown="the target", lowest=0, highest=1_000_000)
    local_test: float = setting(
        0.0,
        help="Share of its examples on which each device tests weights, before and after it trains on the others.",
        shown="none",
        lowest=SMALLEST,
        highest=0.99,
        off=0,
        usual=(0.01, 0.9),
        why="Both parts need examples.",
    )
    shown_from: int = setting(
        SHOWN_FROM,
        help="Statistics, and the spread over devices, are of at least so many.",
        lowest=1,
        highest=1_000_000,
    )
    quantiles_from: int = setting(
        QUANTILES_FROM, help="Quantiles over devices are of at least so many.", lowest=1, highest=1_000_000
    )

    @property
    def makes_weights(self) -> bool:
        """Whether its folds are new weights."""
        return self.kind == TRAIN

    def _check_kind(self, minimum: int) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"{{kind}} expects one of {', '.join(KINDS)}, got {self.kind!r:.80}.")
        settings = settings_of(type(self))
        given = {each.name for each in settings if getattr(self, each.name) != each.default}
        if self.makes_weights:
            for name in () if self.evaluate_every else _OF_EVALUATING:
                if name in given:
                    raise SettingError(
                        f"{{{name}}} has no meaning without {{evaluate_every}}.",
                        hint="Give {evaluate_every} 1, or more.",
                    )
            return
        # Quantiles of data are of all rows together.
        known = [each for each in _OF_ANY_KIND if (each, self.kind) != ("quantiles_from", "statistics")]
        for each in settings:
            if each.name in given and each.name not in known:
                raise SettingError(f"{{{each.name}}} has no meaning with {{kind}} {self.kind}.", hint="Leave it out.")
        if self.kind == "statistics" and minimum < self.shown_from:
            raise SettingError(
                f"{{kind}} statistics expects at least {self.shown_from} outcomes ({{shown_from}}), got {minimum}: of "
                "fewer devices, single ones could be seen in the sums.",
                hint="Give a larger {target}, or {minimum}; or a smaller {shown_from}, if the devices' owners agree.",
            )
