"""edgefl: federated learning of Keras models on edge devices.

    result = edgefl.convert(model, "model.tflite")     # needs the extra [convert]
    model = edgefl.TrainableModel("model.tflite")      # needs the extra [device]
    device = edgefl.Device(...)                        # needs the extra [device]
    history = edgefl.simulate("model.tflite", …)       # needs the extra [simulate]
    from edgefl import learning                        # TensorFlow Federated's loop: [simulate] and [convert]

Importing this package imports neither a part nor numpy: each name is resolved when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefl import errors
from edgefl.parts import FACADE, load
from edgefl.version import __version__

if TYPE_CHECKING:
    from edgefl.layout import Parameter, ParameterLayout
    from edgefl.manifest import ModelManifest
    from edgefl_converters import FineTuning, convert, export, load_model, verify
    from edgefl_device_runtime.agent import Device
    from edgefl_device_runtime.training import TrainableModel
    from edgefl_simulation import History, federated_statistics, learning, simulate

__all__ = [
    "Device",
    "FineTuning",
    "History",
    "ModelManifest",
    "Parameter",
    "ParameterLayout",
    "TrainableModel",
    "__version__",
    "convert",
    "errors",
    "export",
    "federated_statistics",
    "learning",
    "load_model",
    "simulate",
    "verify",
]


if not TYPE_CHECKING:  # a type checker takes a function of this name as leave for any attribute

    def __getattr__(name: str) -> Any:
        if name in FACADE:
            return getattr(load(FACADE[name]), name)
        raise AttributeError(f"module 'edgefl' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names; without those that need what is not installed, over which `help` would stumble."""
    return [name for name in __all__ if name not in FACADE or FACADE[name].is_there()]
