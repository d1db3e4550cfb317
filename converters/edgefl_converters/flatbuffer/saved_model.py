"""The TFLite converter proper, without what ``tf.lite.TFLiteConverter`` does around it.

The public class loads the saved model twice and parses and packs the result three times, in Python: more than half of
the time of a conversion. Here the same flags go straight to the converter.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from tensorflow.lite.python import convert as conversion
from tensorflow.lite.python import lite
from tensorflow.lite.python.convert_phase import ConverterError

__all__ = ["ConverterError", "convert_saved_model"]


def convert_saved_model(folder: str, signatures: Sequence[str]) -> bytes:
    """Converts a saved model with variables to a TFLite file, float32 and builtin ops only.

    Args:
        folder: where it lies.
        signatures: keys of those to convert.

    Raises:
        ConverterError: an op has no builtin form.
    """
    # Never runs; it knows the flags that the public converter would pass.
    settings = lite.TFLiteConverterBaseV2()
    settings.saved_model_dir = folder
    settings._saved_model_version = 1  # The importer for variables and signatures.
    settings._saved_model_tags = {tf.saved_model.SERVING}
    settings._saved_model_exported_names = list(signatures)
    settings.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    settings.experimental_enable_resource_variables = True
    flags = settings._get_base_converter_args()
    flags["enable_tflite_resource_variables"] = True
    flags["inference_type"] = tf.float32
    return bytes(conversion.convert_saved_model(**flags))
