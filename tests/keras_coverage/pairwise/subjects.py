"""What is combined: a public class, the values of its arguments, and the small model that one choice of them makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SUBJECTS", "Built", "Subject", "add", "parameters", "unvalued"]

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Built:
    """What settings make, ready to be put into a model together with what others make.

    Attributes:
        inputs: Keras inputs of its own.
        outputs: Keras tensors that depend on nothing else.
        compiled: arguments of ``compile`` that it needs; those of several are joined in the order of the outputs.
    """

    inputs: Sequence[Any]
    outputs: Sequence[Any]
    compiled: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """One public class of Keras.

    Attributes:
        section: ``layers``, ``losses``, ``optimizers`` or ``metrics``.
        api: the class.
        values: of each argument, the usual one first. Names that the class has not are settings of its surroundings.
        build: makes a part of a model from one value of each.
        alone: whether a model holds one of them only.
        once: values of arguments that are not combined, but tried once each beside the usual ones of all others.
    """

    section: str
    api: Any
    values: Mapping[str, Sequence[Any]]
    build: Callable[[Any, Settings], Built]
    alone: bool = False
    once: Mapping[str, Any] = field(default_factory=dict)

    @property
    def usual(self) -> dict[str, Any]:
        """The first value of each argument."""
        return {name: values[0] for name, values in sorted(self.values.items())}

    @property
    def name(self) -> str:
        """As the document calls it."""
        return f"{self.section}.{self.api.__name__}"


SUBJECTS: dict[str, Subject] = {}


def add(subject: Subject) -> None:
    """Puts a subject into `SUBJECTS`."""
    assert subject.name not in SUBJECTS, subject.name
    SUBJECTS[subject.name] = subject


def parameters(api: Any) -> list[str]:
    """The arguments that a class documents by name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in inspect.signature(api.__init__).parameters.values() if each.kind in named][1:]


def unvalued(subject: Subject, constant: Sequence[str]) -> list[str]:
    """Arguments of the class that have no values here and are not held constant on purpose."""
    return [name for name in parameters(subject.api) if name not in subject.values and name not in constant]
