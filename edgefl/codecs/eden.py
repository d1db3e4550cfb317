"""The codecs ``eden-2``, ``eden-3``, ``eden-4``: so many bits an element after a random rotation, unbiased.

Vargaftik et al. 2022, "EDEN: Communication-Efficient and Robust Distributed Mean Estimation for Federated Learning".
Each element becomes the nearest of the numbers with which the squared error of a standard normal is least (Max 1960,
"Quantizing for Minimum Distortion"; Lloyd 1982). With the error D of these, the squared error of the codec is
1/(1 - D) - 1 times the vector's squared norm: 0.133, 0.0358, 0.00959.
"""

from __future__ import annotations

from edgefl.codecs.base import register
from edgefl.codecs.rotated import rotated_codec

__all__ = ["CENTROIDS"]

CENTROIDS = {
    2: (0.4527800, 1.5104176),
    3: (0.2450942, 0.7560053, 1.3439093, 2.1519457),
    4: (0.1283950, 0.3880483, 0.6567591, 0.9423405, 1.2562312, 1.6180464, 2.0690172, 2.7325896),
}
"""The numbers above 0, by bits: each is the mean of a standard normal between the middles to its neighbours. They are
written down, and not computed, so that no machine's logarithm has a say in what a device sends."""

for _bits, _positive in CENTROIDS.items():
    register(rotated_codec(f"eden-{_bits}", _positive))
