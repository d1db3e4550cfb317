"""Federated algorithms that need more of a model file than plain training, and what each needs."""

from __future__ import annotations

from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest

__all__ = ["ALGORITHMS", "check_plain_sgd", "check_supports", "supported"]

ALGORITHMS = ("fedprox", "scaffold", "feddyn", "fedsgd")
"""What ``edgefl convert --algorithm`` takes."""

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


def supported(manifest: ModelManifest) -> tuple[str, ...]:
    """The algorithms of `ALGORITHMS` that a model file can take part in."""
    return tuple(name for name in ALGORITHMS if _complaint(manifest, name) is None)


def check_supports(manifest: ModelManifest, algorithm: str) -> None:
    """Whether a model file can take part in an algorithm.

    Args:
        manifest: the file's.
        algorithm: one of `ALGORITHMS`; every file can do others.

    Raises:
        InvalidSettingError: it lacks a signature, or its optimizer does not fit; the hint is the way out.
    """
    complaint = _complaint(manifest, algorithm)
    if complaint is not None:
        raise complaint


def _complaint(manifest: ModelManifest, algorithm: str) -> InvalidSettingError | None:
    needs = {
        "fedprox": manifest.has_proximal_term,
        "scaffold": manifest.has_correction,
        "feddyn": manifest.has_proximal_term and manifest.has_correction,
        "fedsgd": manifest.has_gradient,
    }
    if not needs.get(algorithm, True):
        return InvalidSettingError(
            f"The model file was not made for {algorithm}.", hint=f"Convert it with --algorithm {algorithm}."
        )
    try:
        if algorithm == "scaffold":
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
