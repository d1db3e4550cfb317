"""Where layers stand: between one that needs its gradient and one that sees all that they return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from keras_coverage.pairwise.subjects import Built, Settings, Subject, add, parameters
from keras_coverage.pairwise.values import ONCE, values_of

__all__ = [
    "ALL_RANKS",
    "RANKS",
    "SHAPES",
    "behind",
    "first_channels",
    "hidden",
    "images",
    "layer",
    "learnt",
    "own",
    "seen",
    "sequence",
    "tokens",
]


SHAPES = {1: (11, 4), 2: (7, 6, 4), 3: (5, 5, 6, 4)}
"""Of a row, by the number of spatial dimensions."""


RANKS = {1: (4,), 2: (3, 4), 3: (3, 2, 4)}


ALL_RANKS = {"rank": (2, 1, 3)}


_MANY, _FEW = 1024, 8


_AROUND = ("rank", "mask", "causal", "scores", "initial_state", "given", "branches")
"""Settings that are none of the layer's own."""


def own(settings: Settings) -> dict[str, Any]:
    """Those settings that go to the layer."""
    return {name: value for name, value in settings.items() if name not in _AROUND}


def seen(outputs: Any) -> list[Any]:
    """Two numbers of each tensor that a layer returns, in one."""
    heads = []
    for tensor in keras.tree.flatten(outputs):
        numbers = tensor if "float" in str(tensor.dtype) else layers.Lambda(_as_floats)(tensor)
        heads.append(layers.Dense(2)(layers.Flatten()(numbers)))
    return [heads[0] if len(heads) == 1 else layers.Concatenate()(heads)]


def _as_floats(tensor: Any) -> Any:
    return keras.ops.cast(tensor, "float32")


def first_channels(shape: Sequence[int], settings: Settings) -> tuple[int, ...]:
    """A row's shape in the format that the settings want."""
    if settings.get("data_format") == "channels_first":
        return (shape[-1], *shape[:-1])
    return tuple(shape)


def hidden(shape: Sequence[int]) -> tuple[Any, Any]:
    """An input, and what a first layer makes of it."""
    given = keras.Input(tuple(shape))
    return given, learnt(given)


def learnt(given: Any, activation: str = "tanh") -> Any:
    """As many features as before, of a layer that learns; of many through a few, or it would have their square."""
    width = given.shape[-1]
    few = layers.Dense(_FEW)(given) if width > _MANY else given
    return layers.Dense(width, activation)(few)


def behind(shape: Sequence[int] | None = None) -> Callable[[Any, Settings], Built]:
    """The layer behind one that learns; without a shape the settings say of which rank."""

    def build(api: Any, settings: Settings) -> Built:
        row = RANKS[settings["rank"]] if shape is None else first_channels(shape, settings)
        given, features = hidden(row)
        return Built([given], seen(api(**own(settings))(features)))

    return build


def images(shape: Sequence[int] = (6, 5, 3)) -> Callable[[Any, Settings], Built]:
    """Images in the range of values before the layer, and a convolution that learns behind it."""

    def build(api: Any, settings: Settings) -> Built:
        given = keras.Input(first_channels(shape, settings))
        pixels = layers.Activation("sigmoid")(given)
        if settings.get("value_range", (0, 1)) == (0, 255):
            pixels = layers.Rescaling(255.0)(pixels)
        return Built([given], seen(layers.Dense(3, "tanh")(api(**own(settings))(pixels))))

    return build


def tokens(length: int = 4, vocabulary: int = 7) -> Callable[[Any, Settings], Built]:
    """Token numbers before the layer."""

    def build(api: Any, settings: Settings) -> Built:
        given = keras.Input((length,), dtype="int32")
        return Built([given], seen(api(**own(settings))(given)))

    return build


def sequence(settings: Settings, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    known: Any
    if settings.get("mask"):
        given = keras.Input(shape[:1], dtype="int32")
        known = layers.Embedding(7, shape[-1])(given)
        return given, layers.Embedding(7, shape[-1], mask_zero=True)(given), known
    # A stateful layer has a state for each row: their number must be known.
    given = keras.Input(shape, batch_size=4 if settings.get("stateful") else None)
    known = layers.Dense(shape[-1], "tanh")(given)
    return given, known, known


def layer(name: str, build: Callable[[Any, Settings], Built], **values: Sequence[Any]) -> None:
    """A subject for a layer, with the options of the class that all layers extend."""
    api = getattr(layers, name)
    inherited = {"activity_regularizer": (None, "l2"), "trainable": (True, False)}
    taken = [*parameters(api), *_GIVEN_ON.get(name, ())]
    extended = {each: inherited[each] for each in inherited if each not in taken and _takes_more(api)}
    add(Subject("layers", api, {**extended, **values_of(api, **values)}, build, once=_once(api)))


_GIVEN_ON = {"ActivityRegularization": ("activity_regularizer",)}
"""What a class gives to the class that all layers extend itself."""


def _once(api: Any) -> dict[str, Any]:
    return {name: ONCE[name] for name in parameters(api) if name in ONCE}


def _takes_more(api: Any) -> bool:
    return any(
        each.kind is inspect.Parameter.VAR_KEYWORD for each in inspect.signature(api.__init__).parameters.values()
    )
