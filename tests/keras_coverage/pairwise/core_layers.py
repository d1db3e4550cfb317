"""Layers on anything: dense ones, activations, noise, normalization, merging, and what prepares data."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_coverage.pairwise.places import ALL_RANKS, RANKS, behind, hidden, layer, own, seen, tokens
from keras_coverage.pairwise.subjects import Built, Settings


def merging(api: Any, settings: Settings) -> Built:
    """Branches that the layer merges."""
    shape = RANKS[settings["rank"]]
    given = keras.Input(shape)
    kinds = ("tanh", "sigmoid", "gelu")[: settings["branches"]]
    return Built([given], seen(api(**own(settings))([layers.Dense(shape[-1], kind)(given) for kind in kinds])))


def _core() -> None:
    everywhere = behind()
    layer("Dense", everywhere, units=(4, 2), **ALL_RANKS)
    layer(
        "EinsumDense",
        _einsum,
        equation=("abc,cd->abd", "abc,cde->abde", "...c,cd->...d"),
        bias_axes=(None, "last"),
        output_shape=("as it says",),
    )
    layer(
        "Activation",
        everywhere,
        activation=("relu", "gelu", "softplus", "softmax", "log_softmax", "sparsemax"),
        **ALL_RANKS,
    )
    layer("Wrapper", _wrapper, layer=("Dense",), **ALL_RANKS)
    layer("Identity", everywhere, **ALL_RANKS)
    layer("Softmax", everywhere, axis=(-1, 1, (1, 2)), **ALL_RANKS)
    layer("ReLU", everywhere, max_value=(None, 0.6), negative_slope=(0.0, 0.1), threshold=(0.0, 0.2), **ALL_RANKS)
    layer("LeakyReLU", everywhere, negative_slope=(0.3, 0.0), **ALL_RANKS)
    layer("ELU", everywhere, alpha=(1.0, 0.5), **ALL_RANKS)
    layer("PReLU", everywhere, shared_axes=(None, [1], [1, 2]), **ALL_RANKS)
    layer("ActivityRegularization", everywhere, l1=(0.0, 0.01), l2=(0.0, 0.02), **ALL_RANKS)
    layer(
        "Rescaling", everywhere, scale=(0.5, [1.0, 2.0, 3.0, 4.0]), offset=(0.0, 1.0, [1.0, 2.0, 3.0, 4.0]), **ALL_RANKS
    )
    layer(
        "Lambda",
        everywhere,
        function=(keras.ops.tanh, keras.ops.relu),
        output_shape=(None,),
        mask=(None,),
        arguments=(None,),
        **ALL_RANKS,
    )
    layer("Embedding", tokens(), input_dim=(7,), output_dim=(4, 1))
    layer(
        "ReversibleEmbedding",
        _reversible,
        input_dim=(7,),
        output_dim=(4, 2),
        tie_weights=(True, False),
        logit_soft_cap=(None, 2.0),
    )
    layer(
        "InputLayer",
        _input,
        shape=((4,), (3, 4)),
        batch_size=(None, 4),
        dtype=("float32", "int32"),
        sparse=(None,),
        ragged=(None,),
        batch_shape=(None,),
        input_tensor=(None,),
        optional=(False,),
    )


def _einsum(api: Any, settings: Settings) -> Built:
    given, features = hidden((3, 4))
    bias = (
        {"abd": "d", "abde": "de", "...d": "d"}[settings["equation"].split("->")[1]] if settings["bias_axes"] else None
    )
    shape = (3, 2, 3) if "e" in settings["equation"] else (3, 3)
    shape = 3 if "..." in settings["equation"] else shape
    return Built([given], seen(api(**{**own(settings), "bias_axes": bias, "output_shape": shape})(features)))


def _reversible(api: Any, settings: Settings) -> Built:
    given = keras.Input((4,), dtype="int32")
    embedding = api(**own(settings))
    return Built([given], seen(embedding(layers.Dense(settings["output_dim"], "tanh")(embedding(given)), reverse=True)))


def _input(api: Any, settings: Settings) -> Built:
    given = api(**own(settings)).output
    return Built([given], seen(given))


def _noise() -> None:
    everywhere = behind()
    for name in ("Dropout", "AlphaDropout"):
        layer(name, _with_noise_shape, **ALL_RANKS)
    layer("GaussianDropout", everywhere, **ALL_RANKS)
    layer("GaussianNoise", everywhere, stddev=(0.3, 0.0), **ALL_RANKS)
    for d in (1, 2, 3):
        layer(f"SpatialDropout{d}D", behind({1: (3, 4), 2: (3, 2, 4), 3: (2, 3, 2, 4)}[d]), rate=(0.3, 0.0))


def _with_noise_shape(api: Any, settings: Settings) -> Built:
    shape = RANKS[settings["rank"]]
    noise = None if settings["noise_shape"] is None else (None, *([1] * (len(shape) - 1)), shape[-1])
    return behind()(api, {**settings, "noise_shape": noise})


def _normalization() -> None:
    everywhere, axes = behind(), (-1, 1, (1, 2))
    layer(
        "BatchNormalization",
        everywhere,
        axis=(-1, 1),
        momentum=(0.99, 0.7),
        renorm=(False, True),
        renorm_clipping=(None, {"rmax": 2.0, "rmin": 0.5, "dmax": 1.0}),
        renorm_momentum=(0.99, 0.8),
        **ALL_RANKS,
    )
    layer("LayerNormalization", everywhere, axis=axes, **ALL_RANKS)
    layer("GroupNormalization", everywhere, groups=(2, -1, 1), axis=(-1, 1), **ALL_RANKS)
    layer("RMSNormalization", everywhere, axis=axes, **ALL_RANKS)
    layer("UnitNormalization", everywhere, axis=axes, **ALL_RANKS)
    layer(
        "Normalization", everywhere, axis=(-1, None, 1), mean=(0.3,), variance=(2.0,), invert=(False, True), **ALL_RANKS
    )
    layer("SpectralNormalization", _spectral, layer=("Dense", "Conv2D", "Embedding"), power_iterations=(1, 2))


def _spectral(api: Any, settings: Settings) -> Built:
    if settings["layer"] == "Embedding":
        given = features = keras.Input((4,), dtype="int32")
        inner: Any = layers.Embedding(7, 3)
    else:
        given, features = hidden((4, 4, 3))
        inner = layers.Dense(3) if settings["layer"] == "Dense" else layers.Conv2D(3, 2)
    return Built([given], seen(api(**{**own(settings), "layer": inner})(features)))


def _merging() -> None:
    for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Concatenate"):
        more = {"axis": (-1, 1, 0)} if name == "Concatenate" else {}
        layer(name, merging, branches=(2, 3), **ALL_RANKS, **more)
    layer("Subtract", merging, branches=(2,), **ALL_RANKS)
    layer("Dot", merging, axes=(-1, 1, (1, 2), (2, 1)), normalize=(False, True), branches=(2,), rank=(1, 2, 3))


class _Around(layers.Wrapper):
    def call(self, x: Any) -> Any:
        return self.layer(x) * 2.0


def _wrapper(api: Any, settings: Settings) -> Built:
    return behind()(lambda **more: _Around(**{**more, "layer": layers.Dense(4)}), settings)


def _preparing() -> None:
    modes = ("multi_hot", "one_hot", "count")
    layer("CategoryEncoding", tokens(3), num_tokens=(7,), output_mode=modes)
    layer(
        "Discretization",
        _buckets,
        bin_boundaries=([-0.5, 0.0, 0.7],),
        num_bins=(None,),
        epsilon=(0.01,),
        output_mode=("int", *modes),
        rank=(1, 2),
    )
    layer(
        "STFTSpectrogram",
        behind((40, 1)),
        mode=("log", "magnitude", "psd", "real", "imag", "angle", "stft"),
        frame_length=(16, 12),
        frame_step=(8, None),
        fft_length=(None, 32),
        window=(None,),
        periodic=(False, True),
        scaling=("density", "spectrum", None),
        expand_dims=(False, True),
    )
    layer(
        "MelSpectrogram",
        behind((48,)),
        fft_length=(16,),
        sequence_stride=(8, 4),
        sequence_length=(None, 12),
        window=("hann", "hamming"),
        sampling_rate=(800,),
        num_mel_bins=(4,),
        min_freq=(10,),
        max_freq=(None, 300),
        power_to_db=(True, False),
        top_db=(80.0, 20.0),
        mag_exp=(2.0, 1.0),
        min_power=(1e-10, 1e-4),
        ref_power=(1.0,),
    )


def _buckets(api: Any, settings: Settings) -> Built:
    given = keras.Input(RANKS[settings["rank"]])
    return Built(
        [given], seen(api(dtype="float32" if settings["output_mode"] != "int" else None, **own(settings))(given))
    )


for _fill in (_core, _noise, _normalization, _merging, _preparing):
    _fill()
