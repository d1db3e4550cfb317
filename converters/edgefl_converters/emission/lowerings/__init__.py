"""Says how each TensorFlow op without a builtin TFLite form is expressed in builtin ops; one family a module.

A new family is a file in this folder: its functions register themselves, see `registry`.
"""

from edgefl.plugins import import_modules

import_modules(__name__)
