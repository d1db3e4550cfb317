"""The weights in HDF5 files of Keras 2: a group for each layer, its weights in an order of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

from keras.src.legacy.saving.legacy_h5_format import load_attributes_from_hdf5_group
from keras.src.saving.saving_lib import safe_get_h5_group

from edgefl_converters.models.sources.keras_2.rebuilding import Rebuilt
from edgefl_converters.models.sources.keras_2.weights import finish, give, unfit, weights_of

__all__ = ["give_weights"]


def give_weights(rebuilt: Rebuilt, group: Any, place: str) -> None:
    """Gives a rebuilt model the weights of a file.

    Args:
        rebuilt: the model.
        group: ``model_weights`` of the file.
        place: the file, for errors.

    Raises:
        ModelError: they do not fit, or not for certain.
    """
    names = set(load_attributes_from_hdf5_group(group, "layer_names"))
    for name, layer in rebuilt.layers_of(rebuilt.model):
        if name in names:
            own = safe_get_h5_group(group, name)
            saved = load_attributes_from_hdf5_group(own, "weight_names")
            give(rebuilt, layer, [(each, partial(_read, own, each)) for each in saved], place)
        elif weights_of(rebuilt, layer):
            raise unfit(layer, place, [], [each for _, each in weights_of(rebuilt, layer)])
    finish(rebuilt)


def _read(group: Any, name: str) -> Any:
    return group[name][()]
