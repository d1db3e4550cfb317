"""Trained weights back into ordinary models and files: one module for each kind of file."""

from edgefl_converters.exporting.exporting import export
from edgefl_converters.exporting.weight_files import read_weights

__all__ = ["export", "read_weights"]
