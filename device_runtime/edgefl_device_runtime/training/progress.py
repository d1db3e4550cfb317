"""The progress of `fit`, `evaluate` and `predict` on a terminal, in a notebook or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from edgefl.errors import InvalidSettingError
from edgefl_device_runtime.training.callbacks import Callback

__all__ = ["ProgressLine", "resolve_verbose"]

_SECONDS = 0.1
"""The line is not drawn more often: on a slow device, or over a serial line, drawing would cost more than steps do."""
_WIDTH = 20


def resolve_verbose(verbose: Any, stream: TextIO | None = None) -> int:
    """Returns 0 for nothing, 1 for a line that moves, 2 for one line an epoch.

    Args:
        verbose: one of them, a bool, or ``auto``: 1 where somebody looks at a terminal or a notebook, else 0.
        stream: what is written to; by default standard output.

    Raises:
        InvalidSettingError: it is something else.
    """
    if verbose == "auto":
        return int(_moves(stream or sys.stdout))
    if isinstance(verbose, (bool, int)) and int(verbose) in (0, 1, 2):
        return int(verbose)
    raise InvalidSettingError(f"verbose must be 'auto', 0, 1 or 2, got {verbose!r}.")


def _moves(stream: Any) -> bool:
    """Whether a line can be drawn over: on a terminal, and in a notebook, whose stream is none."""
    if type(stream).__module__.startswith("ipykernel."):
        return True
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class ProgressLine(Callback):
    """Shows epochs, steps and the values so far, as Keras's progress bar does.

    Args:
        verbose: 1 or 2.
        stream: by default standard output as it is then.
        clock: seconds that only grow.
    """

    def __init__(self, verbose: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stdout
        self._moving = verbose == 1 and _moves(self._stream)
        self._clock = clock
        self._drawn = self._begun = 0.0
        self._length = self._step = 0
        self._in_fit = False

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Notes that evaluations are those of a `fit`, which shows their values itself."""
        self._in_fit = True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Says which epoch it is."""
        self._write(f"Epoch {epoch + 1}/{self.params.get('epochs', '?')}\n")
        self._begin()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Draws the line again, when it has not been drawn lately."""
        self._go_on(batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Draws it for the last time."""
        self._end(logs or {})

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Begins the line of an `evaluate`."""
        self._begin(self._in_fit)

    def on_test_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """As in training."""
        if not self._in_fit:
            self._go_on(batch, logs or {})

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        """As in training."""
        if not self._in_fit:
            self._end(logs or {})

    def on_predict_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Begins the line of a `predict`."""
        self._begin()

    def on_predict_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """As in training, without values."""
        self._go_on(batch, {})

    def on_predict_end(self, logs: Mapping[str, float] | None = None) -> None:
        """As in training."""
        self._end({})

    def _begin(self, within: bool = False) -> None:
        if not within:
            self._begun, self._drawn, self._length, self._step = self._clock(), 0.0, 0, 0

    def _go_on(self, batch: int, logs: Mapping[str, float]) -> None:
        self._step = batch + 1
        if self._moving and (now := self._clock()) - self._drawn >= _SECONDS:
            self._drawn = now
            self._draw(logs)

    def _end(self, logs: Mapping[str, float]) -> None:
        self._draw(logs)
        self._write("\n")

    def _draw(self, logs: Mapping[str, float]) -> None:
        steps = self.params.get("steps")
        share = min(1.0, self._step / steps) if steps else 1.0
        done = round(share * _WIDTH)
        each = 1e3 * (self._clock() - self._begun) / max(1, self._step)
        values = "".join(f" - {name}: {value:.4g}" for name, value in logs.items())
        line = f"{self._step}/{steps or self._step} {'━' * done}{'·' * (_WIDTH - done)} {each:.3g} ms/step{values}"
        self._write(f"\r{line:<{self._length}}" if self._moving else line)
        self._length = len(line)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a terminal without the bar's characters
            self._stream.write(text.translate({ord("━"): "=", ord("·"): "."}))
        self._stream.flush()
