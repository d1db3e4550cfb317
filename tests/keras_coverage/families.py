"""All rows: importing the modules of the families fills the table."""

from keras_coverage import dense_layers
from keras_coverage.rows import ROWS

__all__ = ["ROWS", "dense_layers"]
