"""The evaluation after the epochs of a `fit`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl_device_runtime.training.arguments import check_count, check_frequency
from edgefl_device_runtime.training.callbacks import Callbacks
from edgefl_device_runtime.training.data import Dataset
from edgefl_device_runtime.training.evaluation import Rows, evaluate_rows
from edgefl_device_runtime.training.interpreter import Interpreter
from edgefl_device_runtime.training.sources import source_of

__all__ = ["Validation", "split_rows"]


@dataclass(frozen=True)
class Validation:
    """The validation of a `fit`.

    Attributes:
        rows: what is evaluated; None for nothing.
        frequency: after every so many epochs, or after those, counted from 1.
    """

    rows: Rows | None
    frequency: int | Collection[int] = 1

    @classmethod
    def of(
        cls, manifest: ModelManifest, data: Any, batch_size: int | None, steps: int | None, frequency: Any
    ) -> Validation:
        """Checks what the caller gave.

        Raises:
            DataError: the data does not fit the model.
            InvalidSettingError: a setting is out of range.
        """
        frequency = check_frequency(frequency)
        if data is None:
            if steps is not None:
                raise InvalidSettingError("validation_steps is given, but neither validation_data nor a split.")
            return cls(None)
        if isinstance(data, Dataset):
            data = (data, None)
        steps = None if steps is None else check_count("validation_steps", steps)
        if (source := source_of(data)) is not None:
            return cls(Rows(manifest, "evaluate", source, steps=steps), frequency)
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise DataError("validation_data expects (x, y) or (x, y, sample_weight), or batches of them.")
        return cls(Rows(manifest, "evaluate", *data, batch_size=batch_size, steps=steps), frequency)

    def values(
        self, epoch: int, interpreter: Interpreter, manifest: ModelManifest, callbacks: Callbacks
    ) -> Mapping[str, float] | None:
        """Loss and metrics after an epoch, counted from 0; None where it is not one to validate after."""
        if self.rows is None:
            return None
        number = epoch + 1
        due = number % self.frequency == 0 if isinstance(self.frequency, int) else number in self.frequency
        return evaluate_rows(interpreter, manifest, self.rows, callbacks) if due else None


def split_rows(data: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Puts the last rows aside, as Keras does.

    Returns:
        What to train on, and what to validate on.

    Raises:
        DataError: nothing would be left on one side.
    """
    at = int(data.rows * (1.0 - share))
    if at in (0, data.rows):
        raise DataError(
            f"validation_split {share:g} of {data.rows} rows leaves nothing to {'validate' if at else 'train'} on.",
            hint="Choose another share, or give more data.",
        )
    return data.part(0, at), data.part(at, data.rows)
