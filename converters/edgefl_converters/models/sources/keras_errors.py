"""Tells what an error of Keras is about, by the call that raised it: the error itself has nothing but a text."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType

__all__ = ["UnknownNameError", "cause", "class_in_the_making", "unknown_name"]

_LOOKUPS = {
    "get": "identifier",  # of keras.activations, initializers, losses, optimizers, …
    "_retrieve_class_or_fn": "name",  # of a .keras file
    "class_and_config_for_serialized_keras_object": "class_name",  # of an .h5 file
}
"""Functions of Keras that look a name up, and the argument or variable of each that holds it."""
_WRAPPERS = ("from_config", "deserialize_keras_object")
"""Functions of Keras that raise an error of their own of whatever a constructor raises."""


class UnknownNameError(ValueError):
    """A file names a class that neither Keras nor the user has.

    Args:
        name: of the class.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def unknown_name(error: BaseException) -> str | None:
    """The name that Keras did not know while it built a model; None where it failed in another way.

    Args:
        error: raised by Keras, or by code that called it; what led to it is looked at too.
    """
    for each in _chain(error):
        if isinstance(each, UnknownNameError):
            return each.name
        if isinstance(each, AttributeError) and getattr(each.obj, "__name__", "").startswith("keras"):
            return str(each.name)
        frame = _raised_in(each)
        found = None if frame is None or not _is_keras(frame) else frame.f_locals.get(_LOOKUPS.get(_name(frame), ""))
        if isinstance(found, str):
            return found
    return None


def class_in_the_making(error: BaseException) -> str | None:
    """The class of the innermost layer, or the like, that Keras could not make from its configuration."""
    frames = [frame for each in _chain(error) if (frame := _raised_in(each)) is not None and _is_keras(frame)]
    made = [frame.f_locals.get("cls") for frame in frames if _name(frame) == "from_config"]
    return next((each.__name__ for each in reversed(made) if isinstance(each, type)), None)


def cause(error: BaseException) -> BaseException:
    """The error that Keras's own only wrap; what it was raised in place of, such as a KeyError, says less than it."""
    found = error
    for found in _chain(error):
        frame = _raised_in(found)
        if frame is None or not _is_keras(frame) or _name(frame) not in _WRAPPERS:
            break
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the cause last."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _raised_in(error: BaseException) -> FrameType | None:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return None if traceback is None else traceback.tb_frame


def _is_keras(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("keras.")


def _name(frame: FrameType) -> str:
    return frame.f_code.co_name
