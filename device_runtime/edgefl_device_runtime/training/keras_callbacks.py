"""Keras's own callbacks: those that work with a model file; Keras itself is not imported here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl.manifest import Metric

__all__ = ["check_callback", "choose_direction"]

_WORK = frozenset(
    {
        *("Callback", "MonitorCallback", "History", "EarlyStopping", "CSVLogger", "LearningRateScheduler"),
        *("ReduceLROnPlateau", "TerminateOnNaN", "LambdaCallback", "ProgbarLogger", "RemoteMonitor"),
    }
)
"""They need no more than logs, weights, the learning rate and `stop_training`."""
_KEEP = "keep the weights with `save_weights` in a callback of your own, or the best ones with "
_INSTEAD = {
    "ModelCheckpoint": f"It writes Keras's files: {_KEEP}EarlyStopping(restore_best_weights=True).",
    "OrbaxCheckpoint": f"It writes Keras's state: {_KEEP}EarlyStopping(restore_best_weights=True).",
    "BackupAndRestore": "Keep `get_state()` with numpy.savez, and go on with `set_state` and `initial_epoch`.",
    "TensorBoard": "Use CSVLogger, or what `fit` returns: `history.history`.",
    "SwapEMAWeights": "Leave it out: the average that a model file trains is among its statistics.",
    "CallbackList": "Give the callbacks themselves, as a list.",
}
_METHODS = "Derive it from `edgefl_device_runtime.training.Callback`, or from Keras's."


def check_callback(callback: Any) -> None:
    """Makes sure that a callback can work with a model file.

    Raises:
        InvalidSettingError: it is one of Keras's that cannot, or no callback at all.
    """
    if isinstance(callback, type) or not hasattr(callback, "set_model"):
        raise InvalidSettingError(f"callbacks expects objects, got {callback!r:.80}.", hint=_METHODS)
    for kind in type(callback).__mro__:
        if kind.__module__.partition(".")[0] in ("keras", "tf_keras", "tensorflow") and kind.__name__ not in _WORK:
            raise InvalidSettingError(
                f"Keras's callback {kind.__name__} does not work with a model file.",
                hint=_INSTEAD.get(kind.__name__, f"These do: {', '.join(sorted(_WORK - {'MonitorCallback'}))}."),
            )


def choose_direction(callback: Any, metrics: Iterable[Metric]) -> None:
    """Tells a callback with ``mode="auto"`` whether more of what it monitors is better, as the model's metrics know.

    Keras's would ask the metric objects of a Keras model, which a model file does not have.
    """
    if getattr(callback, "mode", None) != "auto":
        return
    monitored = str(getattr(callback, "monitor", "")).removeprefix("val_")
    direction = next((each.direction for each in metrics if each.name == monitored), "")
    if direction:
        callback.mode = "max" if direction == "up" else "min"
