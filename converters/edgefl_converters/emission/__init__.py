"""One TensorFlow graph emitted again in builtin ops: come here to let a model use one more op.

The modules imported here register what they emit; see `registry`.
"""

from edgefl_converters.emission import control_flow, lowerings, variable_ops

__all__ = ["control_flow", "lowerings", "variable_ops"]
