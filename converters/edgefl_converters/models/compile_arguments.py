"""Arguments of `compile` that Keras takes and that cannot mean what was intended."""

from __future__ import annotations

from typing import Any

import keras

from edgefl.errors import ModelError

__all__ = ["require_sound_arguments"]


def require_sound_arguments(model: keras.Model) -> None:
    """Refuses loss weights that are no numbers, and learning rates that are functions.

    Args:
        model: as it was loaded, compiled or not.

    Raises:
        ModelError: names the argument and what was given.
    """
    weights = getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
    wrong = [each for each in keras.tree.flatten(weights) if each is not None and not _is_number(each)]
    if wrong:
        told = ", ".join(_name(each) for each in wrong)
        raise ModelError(
            f"The model was compiled with loss_weights={_shown(weights)}, which expects numbers; {told} is no number.",
            hint="The third argument of compile is loss_weights: name the metrics, compile(optimizer, loss, "
            f"metrics={_shown(weights)}).",
        )
    optimizer = getattr(model, "optimizer", None)
    rate = getattr(optimizer, "_learning_rate", None)
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if callable(rate) and not isinstance(rate, (keras.Variable, schedule)):
        raise ModelError(
            f"The learning rate of {type(optimizer).__name__} is a function, {_name(rate)}: a device cannot call it.",
            hint="Give a number, which each run can change, or one of keras.optimizers.schedules.",
        )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)


def _name(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(getattr(value, "__name__", None) or type(value).__name__)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_shown(each)}' for key, each in value.items())}}}"
    return repr(value) if isinstance(value, (str, int, float)) else _name(value)
