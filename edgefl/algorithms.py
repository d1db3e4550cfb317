"""Federated algorithms by name, and what each needs of devices and of their model file: the one table of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.wire.vocabulary import Correction, TaskKind

__all__ = [
    "ALGORITHMS",
    "CONTROL",
    "SUMMARY",
    "Algorithm",
    "algorithm",
    "check_plain_sgd",
    "check_supports",
    "conversion_hint",
    "correcting",
    "supported",
]

CONTROL = "control"
"""The task's vector that is SCAFFOLD's ``c``, and the outcome's section that is ``c_i⁺ - c_i``."""

SUMMARY = "summary"
"""The outcome's section of bytes that sums up local data: see `edgefl.summaries`."""


@dataclass(frozen=True)
class Algorithm:
    """Says what an algorithm needs; without anything it is plain training, which every device and file can do.

    Attributes:
        name: what the converter's setting ``algorithms`` calls it.
        title: what its paper calls it.
        proximal: steps take ``mu``, the weight of a term that pulls to the received weights.
        correction: what devices add to the gradient.
        kind: of the tasks.
        plain_sgd: its formula holds for plain SGD with a constant learning rate only.
    """

    name: str = ""
    title: str = ""
    proximal: bool = False
    correction: Correction = Correction.NONE
    kind: TaskKind = TaskKind.TRAIN
    plain_sgd: bool = False

    @property
    def corrected(self) -> bool:
        """Whether a vector is added to the gradient."""
        return self.correction is not Correction.NONE

    @property
    def gradient(self) -> bool:
        """Whether devices send a gradient instead of a trained delta."""
        return self.kind is TaskKind.GRADIENT

    @property
    def vectors(self) -> tuple[str, ...]:
        """The vectors that a task names beside the weights, and that its device may fetch."""
        return (CONTROL,) if self.correction is Correction.SCAFFOLD else ()

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of an outcome; ``statistics`` only where the layout has some."""
        if self.kind is TaskKind.EVALUATE:
            return ()
        if self.kind is TaskKind.STATISTICS:
            return (SUMMARY,)
        return ("gradient",) if self.gradient else ("delta", "statistics", *self.vectors)

    def is_possible(self, manifest: ModelManifest) -> bool:
        """Whether a model file has the signatures."""
        return (
            (manifest.has_proximal_term or not self.proximal)
            and (manifest.has_correction or not self.corrected)
            and (manifest.has_gradient or not self.gradient)
        )

    def is_reason_for(self, manifest: ModelManifest) -> bool:
        """Whether a file like this one has to be made for the algorithm."""
        if self.gradient:
            return manifest.has_gradient
        return (self.proximal, self.corrected) == (manifest.has_proximal_term, manifest.has_correction)


_ALGORITHMS = {
    each.name: each
    for each in (
        Algorithm("fedprox", "FedProx", proximal=True),
        Algorithm("scaffold", "SCAFFOLD", correction=Correction.SCAFFOLD, plain_sgd=True),
        Algorithm("feddyn", "FedDyn", proximal=True, correction=Correction.FEDDYN),
        Algorithm("fedsgd", "FedSGD", kind=TaskKind.GRADIENT),
    )
}
ALGORITHMS = tuple(_ALGORITHMS)
"""The algorithms that need more of a model file than plain training; a model is converted for one of them, or none."""

_INERT = {
    "momentum": (0, None),
    "weight_decay": (0, None),
    "clipnorm": (None,),
    "clipvalue": (None,),
    "global_clipnorm": (None,),
    "use_ema": (False, None),
    "gradient_accumulation_steps": (None, 1),
}
"""Settings of Keras's SGD, and the values at which a step is ``w - learning_rate * gradient``."""


def algorithm(name: str) -> Algorithm:
    """The algorithm of a name; one that needs nothing where the name is not of `ALGORITHMS`."""
    return _ALGORITHMS.get(name, Algorithm())


def correcting(correction: int) -> Algorithm:
    """The algorithm that a task's correction is of; one that needs nothing where there is none, or it is not known."""
    having = (each for each in _ALGORITHMS.values() if each.corrected and each.correction == correction)
    return next(having, Algorithm())


def supported(manifest: ModelManifest) -> tuple[str, ...]:
    """The algorithms of `ALGORITHMS` that a model file can take part in."""
    return tuple(name for name in ALGORITHMS if _complaint(manifest, name) is None)


def conversion_hint(*names: str) -> str:
    """Names the settings of a conversion that bring into a model's file what one of some algorithms needs of it."""
    settings = " or ".join(f"`algorithms={name!r}`" for name in names)
    return f"Convert the model again with {settings} (edgefl convert {' or '.join(f'--algorithm {n}' for n in names)})."


def check_supports(manifest: ModelManifest, name: str) -> None:
    """Whether a model file can take part in an algorithm.

    Args:
        manifest: the file's.
        name: one of `ALGORITHMS`; every file can do others.

    Raises:
        InvalidSettingError: it lacks a signature, or its optimizer does not fit; the hint is the way out.
    """
    complaint = _complaint(manifest, name)
    if complaint is not None:
        raise complaint


def _complaint(manifest: ModelManifest, name: str) -> InvalidSettingError | None:
    needs = algorithm(name)
    if not needs.is_possible(manifest):
        return InvalidSettingError(f"The model file was not made for {name}.", hint=conversion_hint(name))
    try:
        if needs.plain_sgd:
            check_plain_sgd(manifest.optimizer)
    except InvalidSettingError as error:
        return error
    return None


def check_plain_sgd(serialised: Any) -> None:
    """Whether a step is ``w - learning_rate * gradient`` with a constant rate, as SCAFFOLD's formula has it.

    Args:
        serialised: the optimizer as Keras serialises it: ``class_name`` and ``config``.

    Raises:
        InvalidSettingError: it is not; the message names the setting.
    """
    optimizer = serialised if isinstance(serialised, dict) else {}
    config: dict[str, Any] = optimizer.get("config") or {}
    found = ""
    if optimizer.get("class_name") != "SGD":
        found = f"the optimizer {optimizer.get('class_name', serialised)!s}"
    elif not isinstance(config.get("learning_rate"), (int, float)):
        found = "a learning rate that changes"
    else:
        unfit = [name for name, inert in _INERT.items() if config.get(name) not in inert]
        if unfit:
            found = f"SGD with {unfit[0]} {config[unfit[0]]!r}"
    if found:
        raise InvalidSettingError(
            f"SCAFFOLD expects plain SGD with a constant learning rate, the model was compiled with {found}.",
            hint="Compile it with keras.optimizers.SGD(learning_rate) and convert it again, or use feddyn.",
        )
