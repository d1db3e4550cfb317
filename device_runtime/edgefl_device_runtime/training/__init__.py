"""Trains a model file on local data: numpy and a TFLite interpreter."""

from edgefl_device_runtime.training.callbacks import Callback
from edgefl_device_runtime.training.gradients import Gradient
from edgefl_device_runtime.training.history import History
from edgefl_device_runtime.training.interpreter import RUNTIMES, installed_runtimes
from edgefl_device_runtime.training.model import TrainableModel

__all__ = ["RUNTIMES", "Callback", "Gradient", "History", "TrainableModel", "installed_runtimes"]
