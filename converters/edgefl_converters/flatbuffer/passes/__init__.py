"""Rewritings of a converted file, one a module: come here to make files faster or smaller.

A new one is a file in this folder, or an entry point ``edgefl.passes`` of another distribution.
"""

from edgefl.plugins import import_modules
from edgefl_converters.flatbuffer.passes.base import PASSES, Pass, ordered_passes, register_pass

__all__ = ["PASSES", "Pass", "ordered_passes", "register_pass"]

import_modules(__name__)
