"""Courses: how the learning rate and the epochs of devices change from version to version of the weights.

Step, exponential and cosine decay are those of Keras's `LearningRateSchedule`s (cosine: Loshchilov and Hutter 2017,
SGDR, equation 5, without restarts); the warm-up is the gradual one of Goyal et al. 2017, Accurate, Large Minibatch SGD,
section 2.2. A version takes the place of a step, since devices know none that they share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from edgefl_server.aggregation.hyperparameters import SMALLEST, SettingError, setting

__all__ = ["Courses"]


def _step(version: int, every: int, by: float, least: float) -> float:
    return max(least, by ** (version // every))


def _exponential(version: int, every: int, by: float, least: float) -> float:
    return float(max(least, by ** (version / every)))


def _cosine(version: int, every: int, by: float, least: float) -> float:
    return least + (1 - least) * (1 + math.cos(math.pi * min(1.0, version / every))) / 2


_COURSES: Mapping[str, Callable[[int, int, float, float], float]] = MappingProxyType(
    {"step": _step, "exponential": _exponential, "cosine": _cosine}
)
_NAMES = ("constant", *_COURSES)
_TEXT = ", ".join(_NAMES)


@dataclass(frozen=True, kw_only=True)
class Courses:
    """The settings of a run that make what devices do depend on the version that they start from.

    Attributes:
        learning_rate_course: ``constant``; ``step``: times the factor after each so many versions; ``exponential``: the
            same gradually; ``cosine``: down along half a cosine over so many versions.
        learning_rate_every: so many versions; 0: all of the run's for cosine, and needed for the others.
        learning_rate_factor: for step and exponential.
        learning_rate_least: the share of the learning rate below which it does not fall.
        learning_rate_warm_up: versions over which the learning rate rises to where it begins.
        epochs_course: likewise for the epochs, which are rounded, and at least one.
        epochs_every: likewise.
        epochs_factor: likewise.
        earlier_rounds: versions, each with the rounds that the run was to have for tasks that start from versions
            before it: a course over all rounds is another one once there are more, and what devices did follows from
            the one of then.
    """

    learning_rate_course: str = setting("constant", help=f"How the learning rate changes by version: {_TEXT}.")
    learning_rate_every: int = setting(
        0, help="Versions after which it does.", shown="cosine: all", lowest=0, highest=1_000_000
    )
    learning_rate_factor: float = setting(0.5, help="Step, exponential: by which factor.", lowest=1e-6, highest=1)
    learning_rate_least: float = setting(0.0, help="Share of it that stays.", shown="0", lowest=0, highest=1)
    learning_rate_warm_up: int = setting(0, help="Versions over which it rises at first.", lowest=0, highest=1_000_000)
    epochs_course: str = setting("constant", help=f"How the epochs change by version: {_TEXT}.")
    epochs_every: int = setting(
        0, help="Versions after which they do.", shown="cosine: all", lowest=0, highest=1_000_000
    )
    epochs_factor: float = setting(0.5, help="Step, exponential: by which factor.", lowest=1e-6, highest=1)
    earlier_rounds: tuple[tuple[int, int], ...] = ()

    def check_courses(self) -> None:
        """Refuses a course that is none, and settings of another one.

        Raises:
            SettingError: there is one.
        """
        defaults = {each.name: each.default for each in fields(Courses)}
        for what in ("learning_rate", "epochs"):
            course, every = getattr(self, f"{what}_course"), getattr(self, f"{what}_every")
            if course not in _NAMES:
                raise SettingError(f"{{{what}_course}} expects one of {_TEXT}, got {course!r:.80}.")
            if course in ("step", "exponential") and not every:
                raise SettingError(f"{{{what}_course}} {course} expects {{{what}_every}}: after how many versions.")
            for part, courses in (
                ("every", tuple(_COURSES)),
                ("factor", ("step", "exponential")),
                ("least", tuple(_COURSES)),
            ):
                name = f"{what}_{part}"
                if name in defaults and getattr(self, name) != defaults[name] and course not in courses:
                    raise SettingError(
                        f"{{{name}}} has no meaning with {{{what}_course}} {course}.",
                        hint=f"Leave it out, or give {{{what}_course}} {' or '.join(courses)}.",
                    )

    def check_last_rate(self, versions: int) -> None:
        """Refuses a course that comes to 0 while the run goes on.

        Args:
            versions: how many the run is to have.

        Raises:
            SettingError: it does.
        """
        if self.learning_rate_share(versions - 1, versions) < SMALLEST:
            after = next(each for each in range(versions) if self.learning_rate_share(each, versions) < SMALLEST)
            raise SettingError(
                f"{{learning_rate_course}} {self.learning_rate_course} comes to 0 after {after} versions, and the run "
                f"has {versions} rounds: nothing would be learnt from then on.",
                hint="Give a larger {learning_rate_every}, or a {learning_rate_least} such as 0.01.",
            )

    @property
    def changes_learning_rate(self) -> bool:
        """Whether the learning rate is not the same for every version."""
        return self.learning_rate_course != "constant" or self.learning_rate_warm_up > 0

    def rounds_from(self, version: int, rounds: int) -> int:
        """The rounds that the run was to have for tasks that start from a version.

        Args:
            version: its number.
            rounds: that it is to have now.
        """
        return next((earlier for before, earlier in self.earlier_rounds if version < before), rounds)

    def noting(self, rounds: int, version: int) -> tuple[tuple[int, int], ...]:
        """The `earlier_rounds` of a run that had so many, once it is to have others for tasks from a version on."""
        courses = (self.learning_rate_course, self.learning_rate_every), (self.epochs_course, self.epochs_every)
        return (*self.earlier_rounds, (version, rounds)) if ("cosine", 0) in courses else self.earlier_rounds

    def learning_rate_share(self, version: int, versions: int) -> float:
        """The factor of the learning rate of tasks that start from a version.

        Args:
            version: its number, from 0.
            versions: how many the run is to have.
        """
        warm_up = self.learning_rate_warm_up
        rising = min(1.0, (version + 1) / warm_up) if warm_up else 1.0
        course = _COURSES.get(self.learning_rate_course)
        if course is None:
            return rising
        every = self.learning_rate_every or max(1, versions)
        return rising * course(version, every, self.learning_rate_factor, self.learning_rate_least)

    def epochs_from(self, epochs: int, version: int, versions: int) -> int:
        """The epochs of tasks that start from a version, at least 1.

        Args:
            epochs: at the beginning.
            version: its number, from 0.
            versions: how many the run is to have.
        """
        course = _COURSES.get(self.epochs_course)
        if course is None:
            return epochs
        share = course(version, self.epochs_every or max(1, versions), self.epochs_factor, 0.0)
        return max(1, math.floor(epochs * share + 0.5))
