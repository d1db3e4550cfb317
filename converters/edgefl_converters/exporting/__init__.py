"""Trained weights back into ordinary models and files: one module for each kind of file."""

from edgefl.weight_files import read_weights
from edgefl_converters.exporting.exporting import export

__all__ = ["export", "read_weights"]
