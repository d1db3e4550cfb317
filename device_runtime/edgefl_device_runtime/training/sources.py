"""Batches as they come: generators, `tf.data`, Keras's `PyDataset`, PyTorch's `DataLoader` and whatever is like them.

None of these libraries is imported: an object is known by what it can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgefl.errors import DataError, InvalidSettingError
from edgefl_device_runtime.training.data import Dataset
from edgefl_device_runtime.training.file_rows import FileRows
from edgefl_device_runtime.training.randomness import row_order

__all__ = ["Source", "require_alone", "source_of", "unpacked"]

_BATCHES = (
    "Give arrays, or batches: a generator, an iterable such as a tf.data.Dataset or a PyTorch DataLoader, or an object "
    "with __len__ and __getitem__ such as Keras's PyDataset."
)


class Source:
    """Batches of a user's, one after the other.

    Args:
        given: the user's object.

    Attributes:
        kind: how to call it in an error.
        steps: batches that it has; None where that is not known, or there is no end.
        once: whether what was read is gone.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        self.kind = type(given).__name__
        # Keras's PyDataset can be iterated too, but then it neither shuffles nor hears of epochs.
        self._indexed = hasattr(given, "__getitem__") and (hasattr(given, "on_epoch_end") or not _iterable(given))
        self.steps = _length(given)
        self.once = not self._indexed and iter(given) is given

    def passes(self, number: int, seed: int | None = None) -> Iterator[Any]:
        """The batches from the first one on.

        Args:
            number: of the pass, which decides with the seed on the order of what can be had in any order.
            seed: None: in their own order.
        """
        if not self._indexed:
            return iter(self._given)
        if self.steps is None:
            return map(self._given.__getitem__, _count())
        order = np.arange(self.steps) if seed is None else row_order(self.steps, seed, number)
        return (self._given[int(index)] for index in order)

    def tell(self, name: str) -> None:
        """Calls a hook of the user's object, ``on_epoch_begin`` or ``on_epoch_end``, if it has it."""
        hook: Callable[[], None] | None = getattr(self._given, name, None)
        if hook is not None and self._indexed:
            hook()


def source_of(given: Any) -> Source | None:
    """Returns the batches of an object that is no array and holds none; None for arrays and whatever else.

    Raises:
        DataError: it holds single examples, not batches.
    """
    if given is None or isinstance(given, (np.ndarray, FileRows, list, tuple, Mapping, str, bytes)):
        return None
    if isinstance(given, Source):
        return given
    if hasattr(given, "__array__") or isinstance(given, (int, float, Dataset)):
        return None
    if any(kind.__module__.startswith("torch.utils.data") for kind in type(given).__mro__) and not _iterable(given):
        raise DataError(
            f"A PyTorch {type(given).__name__} holds single examples, not batches.",
            hint="Give torch.utils.data.DataLoader(dataset, batch_size=...).",
        )
    if _iterable(given) or (hasattr(given, "__getitem__") and (_length(given) is not None or _endless(given))):
        return Source(given)
    raise DataError(f"Data of type {type(given).__name__} is neither arrays nor batches.", hint=_BATCHES)


def require_alone(source: Source, **others: Any) -> None:
    """Makes sure that nothing is given beside batches that bring it themselves.

    Raises:
        InvalidSettingError: names what was given.
    """
    for name, value in others.items():
        if value is not None:
            what = "how many rows they have" if name == "batch_size" else name
            raise InvalidSettingError(
                f"{name} cannot be given beside a {source.kind}: its batches say {what}.",
                hint="Leave it out."
                if name == "batch_size"
                else "Have each batch be a tuple (x, y) or (x, y, sample_weight).",
            )


def unpacked(source: Source, batch: Any) -> tuple[Any, Any, Any]:
    """A batch as x, y and row weights.

    Raises:
        DataError: it is a tuple of another length.
    """
    if isinstance(batch, list) and len(batch) in (2, 3):
        batch = tuple(batch)
    if not isinstance(batch, tuple):
        return batch, None, None
    if not 1 <= len(batch) <= 3:
        raise DataError(
            f"A batch of the {source.kind} is a tuple of {len(batch)}.",
            hint="Have it be x, (x,), (x, y) or (x, y, sample_weight).",
        )
    x, y, sample_weight = (*batch, None, None)[:3]
    return _arrays(x), _arrays(y), None if sample_weight is None else np.asarray(sample_weight)


def _arrays(given: Any) -> Any:
    """Tensors of whatever library as arrays, nested as they were."""
    if given is None or isinstance(given, np.ndarray):
        return given
    if isinstance(given, Mapping):
        return {name: _arrays(value) for name, value in given.items()}
    if isinstance(given, (list, tuple)) and any(hasattr(each, "__array__") for each in given):
        return [_arrays(each) for each in given]
    if hasattr(given, "__array__"):
        return np.asarray(given)
    return given


def _iterable(given: Any) -> bool:
    return hasattr(type(given), "__iter__")


def _length(given: Any) -> int | None:
    """Counts the batches that an object says it has."""
    for name in ("num_batches", "__len__"):
        try:
            found = getattr(given, name, None)
            found = found() if callable(found) else found
        except (TypeError, NotImplementedError):  # an endless or unknown one says so like this
            continue
        if isinstance(found, (int, np.integer)):
            return int(found)
    return None


def _endless(given: Any) -> bool:
    """Whether it says by `num_batches` that its batches can be had by any number."""
    return hasattr(type(given), "num_batches") and given.num_batches is None


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
