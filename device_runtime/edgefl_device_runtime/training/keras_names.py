"""Names that a Keras model has and a model file on a device has not, with what to do instead."""

from __future__ import annotations

__all__ = ["refusal"]

_COMPILED = "it was compiled when it was converted; `optimizer.learning_rate` and `fit(learning_rate=...)` set the rate"
_WEIGHTS = "`get_weights` and `set_weights` have the arrays, `manifest.parameters` their names"
_LAYERS = "its layers are one graph; `summary()` lists its weights, `manifest.keras_config` describes the layers"
_FILES = "`save_weights` keeps the weights, and `edgefl export` makes a .keras or an inference .tflite of them"
_INSTEAD = {
    **dict.fromkeys(("compile", "compiled", "loss", "compile_config", "get_compile_config"), _COMPILED),
    **dict.fromkeys(("variables", "trainable_variables", "non_trainable_variables"), _WEIGHTS),
    **dict.fromkeys(("trainable_weights", "non_trainable_weights"), _WEIGHTS),
    **dict.fromkeys(("layers", "get_layer", "add", "pop", "input", "output", "inputs", "outputs", "call"), _LAYERS),
    **dict.fromkeys(("input_shape", "output_shape", "input_names", "output_names", "trainable"), _LAYERS),
    **dict.fromkeys(("save", "export", "to_json", "get_config", "save_own_variables"), _FILES),
    **dict.fromkeys(("metrics", "metrics_names"), "`manifest.metrics` names them, `evaluate` returns a dict by name"),
    **dict.fromkeys(("reset_metrics", "reset_states", "reset_state"), "each `fit` and `evaluate` counts from zero"),
    **dict.fromkeys(("fit_generator", "train_step", "train_function"), "`fit` takes generators, and makes the steps"),
    **dict.fromkeys(("evaluate_generator", "test_on_batch", "test_step"), "`evaluate` takes rows and generators"),
    **dict.fromkeys(("predict_generator", "predict_on_batch", "predict_step"), "`predict` takes rows and generators"),
    "count_params": "`manifest.layout.size` counts what is shared, `summary()` all",
    "history": "`fit` returns it",
    "stop_predicting": "`predict` cannot be stopped",
    "stop_evaluating": "`evaluate` cannot be stopped",
    "enable_lora": "adapters are chosen by `edgefl convert --lora-rank`",
    "quantize": "`edgefl export --quantize` makes a smaller model for inference",
}


def refusal(kind: str, name: str) -> str:
    """Tells whoever asks an object of `kind` for an attribute what to do instead."""
    instead = _INSTEAD.get(name)
    return f"{kind!r} object has no attribute {name!r}" + (f": {instead}." if instead else "")
