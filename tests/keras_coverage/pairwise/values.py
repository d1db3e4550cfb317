"""Values of arguments, by the argument's name; the usual one first. Classes that want others say so themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_coverage.pairwise.subjects import parameters

__all__ = ["CONSTANT", "ONCE", "values_of"]

CONSTANT = {
    "name": "changes nothing that is computed",
    "dtype": "the runtimes train in float32",
    "weights": "the same as set_weights",
    "quantization_config": "for what is not trained any more",
    "gptq_unpacked_column_size": "for what is not trained any more",
    "reverse_dtype": "the runtimes train in float32",
    "synchronized": "for several processors",
    "ema_momentum": "a factor, which is varied by the schedule of overwriting",
}
"""Arguments of which one value is taken, and why."""

ONCE = {"stateful": True, "sparse": True, "sparse_y_pred": True}
"""Values that mean something else altogether: each is tried once, so that it hides nothing of the other arguments."""

_REGULARIZERS = (None, "L1L2")
_CONSTRAINTS = (None, "unit_norm")

_BY_NAME: dict[str, Sequence[Any]] = {
    "activation": (None, "relu", "softmax"),
    "recurrent_activation": ("sigmoid", "hard_sigmoid", "tanh"),
    "use_bias": (True, False),
    "strides": (1, 2),
    "dilation_rate": (1, 2),
    "groups": (1, 2),
    "padding": ("valid", "same"),
    "data_format": (None, "channels_first"),
    "depth_multiplier": (1, 2),
    "output_padding": (None, 1),
    "unit_forget_bias": (True, False),
    "reset_after": (True, False),
    "dropout": (0.0, 0.3),
    "recurrent_dropout": (0.0, 0.3),
    "seed": (None, 7),
    "return_sequences": (False, True),
    "return_state": (False, True),
    "go_backwards": (False, True),
    "stateful": (False,),
    "unroll": (False, True),
    "zero_output_for_mask": (False, True),
    "use_cudnn": ("auto", False),
    "flash_attention": (None, False),
    "sliding_window": (None, 2),
    "use_gate": (False, True),
    "lora_rank": (None, 2),
    "lora_alpha": (None, 3.0),
    "keepdims": (False, True),
    "center": (True, False),
    "scale": (True, False),
    "epsilon": (1e-3, 1e-5),
    "sparse": (False,),
    "rate": (0.3, 0.0),
    "noise_shape": (None, "broadcast"),
    "interpolation": ("bilinear", "nearest"),
    "fill_mode": ("reflect", "constant", "wrap", "nearest"),
    "fill_value": (0.0, 0.5),
    "value_range": ((0, 1), (0, 255)),
    "mask_zero": (False, True),
    "trainable": (True, False),
    # of losses and metrics
    "reduction": ("sum_over_batch_size", "sum", "mean_with_sample_weight", "none"),
    "from_logits": (False, True),
    "label_smoothing": (0.0, 0.1),
    "axis": (-1, 1),
    "gamma": (2.0, 1.5),
    "alpha": (0.25, 0.7),
    "beta": (0.5, 0.3),
    "class_id": (None, 1),
    "num_thresholds": (200, 20),
    "thresholds": (None, 0.3, [0.2, 0.6]),
    "ignore_class": (None, 1),
    "threshold": (None, 0.5),
    # of optimizers
    "weight_decay": (None, 0.01),
    "clipnorm": (None, 0.1),
    "clipvalue": (None, 0.05),
    "global_clipnorm": (None, 0.1),
    "use_ema": (False, True),
    "ema_overwrite_frequency": (None, 2),
    "loss_scale_factor": (None, 4.0),
    "gradient_accumulation_steps": (None, 2),
    "momentum": (0.0, 0.9),
    "nesterov": (False, True),
    "amsgrad": (False, True),
    "beta_1": (0.9, 0.8),
    "beta_2": (0.999, 0.9),
    "rho": (0.9, 0.6),
    "centered": (False, True),
    "initial_accumulator_value": (0.1, 0.5),
}


def values_of(api: Any, **own: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Values of all arguments of a class.

    Args:
        api: the class.
        own: values of arguments that mean something of their own here, and of settings of the surroundings.
    """
    found: dict[str, Sequence[Any]] = {}
    for name in parameters(api):
        if name in own or name in CONSTANT:
            continue
        if name.endswith("_regularizer"):
            found[name] = _REGULARIZERS
        elif name.endswith("_constraint"):
            found[name] = _CONSTRAINTS
        elif name.endswith("_initializer"):
            found[name] = _initializers(name)
        elif name in _BY_NAME:
            found[name] = _BY_NAME[name]
    return {**found, **own}


def _initializers(name: str) -> Sequence[str]:
    return {
        "beta_initializer": ("zeros", "random_normal"),
        "gamma_initializer": ("ones", "random_uniform"),
        "moving_mean_initializer": ("zeros", "ones"),
        "moving_variance_initializer": ("ones", "zeros"),
        "bias_initializer": ("zeros", "random_normal"),
        "recurrent_initializer": ("orthogonal", "glorot_normal"),
        "embeddings_initializer": ("uniform", "he_normal"),
        "alpha_initializer": ("zeros", "random_uniform"),
    }.get(name, ("glorot_uniform", "he_normal"))
