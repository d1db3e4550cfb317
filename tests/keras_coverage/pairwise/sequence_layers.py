"""Layers on sequences: recurrent ones, their cells and wrappers, and attention."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_coverage.pairwise.places import hidden, layer, own, seen, sequence
from keras_coverage.pairwise.subjects import Built, Settings
from keras_coverage.recurrent_layers import _Cell


def sequences(api: Any, settings: Settings) -> Built:
    """A recurrent layer, behind features of which some are masked, and with states from elsewhere."""
    given, features, known = sequence(settings, (3, 4))
    layer = api(**own(settings))
    states = {}
    if settings["initial_state"]:
        count = 2 if api is layers.LSTM else 1
        states["initial_state"] = [layers.Dense(3, "tanh")(layers.Flatten()(known)) for _ in range(count)]
    return Built([given], seen(layer(features, **states)))


def cells(api: Any, settings: Settings) -> Built:
    """A cell in an RNN."""
    given, features, _ = sequence(settings, (3, 4))
    return Built([given], seen(layers.RNN(api(**own(settings)))(features)))


def attention(api: Any, settings: Settings) -> Built:
    """A sequence that attends to itself or to another one."""
    length = 4
    if settings["mask"]:
        given = keras.Input((length,), dtype="int32")
        query = layers.Embedding(7, 4, mask_zero=True)(given)
    else:
        given, query = hidden((2, 2, length) if settings.get("attention_axes") else (length, 4))
    value = layers.Dense(4, "tanh")(query) if settings["given"] == "another" else query
    called = {"use_causal_mask": settings["causal"], "return_attention_scores": settings["scores"]}
    layer = api(**own(settings))
    plain = api in (layers.Attention, layers.AdditiveAttention)
    return Built([given], seen(layer([query, value], **called) if plain else layer(query, value, **called)))


def _recurrent() -> None:
    around = {"mask": (False, True), "initial_state": (False, True)}
    kinds = {"activation": ("tanh", "relu", "gelu")}
    for name in ("LSTM", "GRU", "SimpleRNN"):
        layer(name, sequences, units=(3,), **kinds, **around)
        layer(f"{name}Cell", cells, units=(3,), **kinds, mask=(False, True))
    layer("RNN", _rnn, cell=("one of your own", "GRUCell", "LSTMCell", "several"), mask=(False, True))
    layer("StackedRNNCells", _stacked, cells=("LSTM, GRU", "SimpleRNN"), mask=(False, True))
    layer(
        "Bidirectional",
        _both_ways,
        layer=("LSTM", "GRU", "SimpleRNN"),
        backward_layer=(None, "of its own"),
        merge_mode=("concat", "sum", "mul", None),
        mask=(False, True),
        return_sequences=(False, True),
        return_state=(False, True),
    )
    layer("TimeDistributed", _each_step, layer=("Dense", "Conv1D", "LSTM", "BatchNormalization"), mask=(False, True))
    layer("Masking", _masking, mask_value=(0.0, 1.0), layer=("LSTM", "GRU", "GlobalAveragePooling1D"))


def _cell(kind: str) -> Any:
    if kind == "one of your own":
        return _Cell(3)
    if kind == "several":
        return [layers.LSTMCell(3), layers.GRUCell(2)]
    return getattr(layers, kind)(3)


def _rnn(api: Any, settings: Settings) -> Built:
    given, features, _ = sequence(settings, (3, 4))
    return Built([given], seen(api(**{**own(settings), "cell": _cell(settings["cell"])})(features)))


def _stacked(api: Any, settings: Settings) -> Built:
    inner = [getattr(layers, f"{kind}Cell")(3) for kind in settings["cells"].split(", ")]
    given, features, _ = sequence(settings, (3, 4))
    return Built([given], seen(layers.RNN(api(**{**own(settings), "cells": inner}))(features)))


def _both_ways(api: Any, settings: Settings) -> Built:
    given, features, _ = sequence(settings, (3, 4))
    kind = getattr(layers, settings["layer"])
    inner = {name: settings[name] for name in ("return_sequences", "return_state")}
    back = None if settings["backward_layer"] is None else kind(3, go_backwards=True, activation="relu", **inner)
    outer = {name: value for name, value in own(settings).items() if name not in inner}
    return Built([given], seen(api(**{**outer, "layer": kind(3, **inner), "backward_layer": back})(features)))


def _each_step(api: Any, settings: Settings) -> Built:
    inner = {
        "Dense": lambda: layers.Dense(2),
        "Conv1D": lambda: layers.Conv1D(2, 2),
        "LSTM": lambda: layers.LSTM(2),
        "BatchNormalization": layers.BatchNormalization,
    }[settings["layer"]]()
    given, features = hidden((3, 4, 3))
    if settings["mask"]:
        features = layers.Masking()(features)
    return Built([given], seen(api(**{**own(settings), "layer": inner})(features)))


def _masking(api: Any, settings: Settings) -> Built:
    given = keras.Input((3, 4))
    masked = api(**{name: value for name, value in own(settings).items() if name != "layer"})(given)
    kind = getattr(layers, settings["layer"])
    return Built([given], seen((kind(3) if "Global" not in settings["layer"] else kind())(masked)))


def _attention() -> None:
    around = {"mask": (False, True), "causal": (False, True), "scores": (False, True), "given": ("itself", "another")}
    layer(
        "MultiHeadAttention",
        attention,
        num_heads=(2, 1),
        key_dim=(3,),
        value_dim=(None, 2),
        output_shape=(None, 3),
        attention_axes=(None, (1, 2)),
        **around,
    )
    layer(
        "GroupQueryAttention", attention, head_dim=(3,), num_query_heads=(4,), num_key_value_heads=(2, 4, 1), **around
    )
    layer("Attention", attention, use_scale=(False, True), score_mode=("dot", "concat"), **around)
    layer("AdditiveAttention", attention, use_scale=(True, False), **around)


for _fill in (_recurrent, _attention):
    _fill()
