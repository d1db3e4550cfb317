"""The codec ``drive``: one bit an element after a random rotation, unbiased.

Vargaftik et al. 2021, "DRIVE: One-bit Distributed Mean Estimation", with the scale of section 4.2: the squared error is
π/2 - 1 = 0.571 times the vector's squared norm, and it evens out in a mean over devices.
"""

from __future__ import annotations

from edgefl.codecs.base import register
from edgefl.codecs.rotated import rotated_codec

__all__ = ["DRIVE"]

DRIVE = register(rotated_codec("drive", (1.0,)))
