"""Says what to use instead of a layer or an op that does not convert: data, so that it can be read and added to."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["replacement", "suggestion"]

_BY_LAYER = {
    "Lambda": "Write it as a keras.layers.Layer with keras.ops, and avoid functions that look at values.",
    "StringLookup|TextVectorization|Hashing|HashedCrossing": "Do lookups before the model, and feed it numbers.",
}
_BY_OP = {
    r".*(Lookup|HashTable|String|Regex).*": "Do lookups and text processing before the model, and feed it numbers.",
    r"Unique.*|Where|BooleanMask|NonZero": "The shape of its result depends on values: use a mask of fixed shape "
    "(keras.ops.where with three arguments) instead.",
    r"Matrix.*|Cholesky.*|Qr|Svd|SelfAdjoint.*|.*Triangular.*": "No runtime on devices has linear algebra beyond "
    "products: compute that part before the model, or learn a plain matrix in its place.",
    r".*FFT.*": "Compute the spectrum before the model, and feed it that.",
    r"PyFunc|EagerPyFunc": "Python code cannot run on devices: express it with keras.ops.",
    r".*Image.*|Decode.*": "Prepare images before the model.",
    r"While|StatelessWhile|TensorList.*": "The gradient of a loop that ends by the data has no builtin form: give it a "
    "fixed number of steps, and choose with keras.ops.where what each of them changes.",
}


def suggestion(layer_class: str, op_types: Iterable[str] = ()) -> str | None:
    """Returns what a user can do about a certain layer or op that failed; None where nothing is known of it.

    Args:
        layer_class: name of the Keras class; empty when it is not known.
        op_types: TensorFlow ops that failed in it.
    """
    for op_type in op_types:
        for pattern, text in _BY_OP.items():
            if re.fullmatch(pattern, op_type):
                return text
    for pattern, text in _BY_LAYER.items():
        if re.fullmatch(pattern, layer_class):
            return text
    return None


def replacement(maker: str, *, is_layer: bool, has_weights: bool, in_inference: bool) -> str:
    """Returns what a user can do about anything that failed.

    Args:
        maker: what made the op, in words.
        is_layer: whether that is a layer.
        has_weights: whether the layer has some, so that it can be frozen.
        in_inference: whether the op is also needed to infer: then nothing is gained by not training.
    """
    if not is_layer:
        return f"Compile the model with another {maker.removeprefix('the ')}."
    if in_inference:
        return "Replace that layer by one that is supported."
    frozen = (
        "freeze it (layer.trainable = False) and everything before it"
        if has_weights
        else ("freeze the layers before it that have weights (layer.trainable = False)")
    )
    return f"Replace that layer by one that is supported, or {frozen}, so that no gradient passes through it."
