"""The optimizer as callbacks and users of Keras reach it: by its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.arguments import check_learning_rate

__all__ = ["Optimizer"]


class _Rate(float):
    """A learning rate that is read as a number and, as Keras's variable can be, assigned to."""

    _set: Callable[[float], None]

    @classmethod
    def of(cls, value: float, assign: Callable[[float], None]) -> _Rate:
        rate = cls(value)
        rate._set = assign
        return rate

    def assign(self, value: float) -> None:
        """Sets the optimizer's rate; callbacks for Keras do so."""
        self._set(value)

    def numpy(self) -> float:
        """Returns the plain number."""
        return float(self)


class Optimizer:
    """The compiled optimizer, which is part of the graph; only its learning rate can be changed.

    Args:
        manifest: the model's.
        feed: hands a learning rate to the graph.

    Attributes:
        name: as Keras calls it.
    """

    def __init__(self, manifest: ModelManifest, feed: Callable[[float], None]) -> None:
        described = manifest.optimizer if isinstance(manifest.optimizer, dict) else {}
        config: Any = described.get("config") or {}
        self.name = str(config.get("name") or described.get("class_name") or "optimizer")
        rate = config.get("learning_rate")
        self._schedule = str(rate.get("class_name", "a schedule")) if isinstance(rate, dict) else None
        self._manifest, self._feed = manifest, feed
        self._rate = manifest.learning_rate

    def __getattr__(self, name: str) -> Any:
        said = "" if name.startswith("_") else ": it is part of the graph; `learning_rate` can be read and set"
        raise AttributeError(f"The optimizer of a model file has no attribute {name!r}{said}")

    def __repr__(self) -> str:
        return f"<{self.name}, learning rate {self._rate:g}>"

    @property
    def learning_rate(self) -> float:
        """The rate that steps are taken with, until it is set again; also in the middle of a `fit`, by a callback.

        Raises:
            InvalidSettingError: when it is set to something that is no finite number of at least 0, or the model was
                compiled with a schedule.
        """
        return _Rate.of(self._rate, self._assign)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._assign(value)

    def _assign(self, value: float) -> None:
        if self._schedule is not None:
            raise InvalidSettingError(
                f"The model was compiled with the learning-rate schedule {self._schedule}, which says the rate of each "
                "step: neither LearningRateScheduler, ReduceLROnPlateau nor anything else can set it.",
                hint="Compile the model with a number as its learning rate and convert it again, or scale the schedule "
                "with `fit(learning_rate=...)`.",
            )
        self._rate = check_learning_rate(self._manifest, value)
        self._feed(self._rate)

    @contextmanager
    def during(self, rate: float | None) -> Iterator[float]:
        """Has one call go with a rate of its own; None: with the one that is set, and that stays as callbacks leave it.

        Raises:
            InvalidSettingError: the rate is negative or not finite.
        """
        before = self._rate
        if rate is not None:
            self._rate = check_learning_rate(self._manifest, rate)
        try:
            yield self._rate
        finally:
            if rate is not None:
                self._rate = before
