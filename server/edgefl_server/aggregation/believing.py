"""Bounds to belief in a device: for how much it counts at most, and how long its update may be."""

from __future__ import annotations

from dataclasses import dataclass

from edgefl_server.aggregation.hyperparameters import NORM_HINT, NORMS, SMALLEST, setting

__all__ = ["Believing"]


@dataclass(frozen=True, kw_only=True)
class Believing:
    """The settings of a run that bound what one device can do.

    Attributes:
        max_examples: a device's num_examples counts for at most this many: it is the device's word.
        max_weight_ratio: it also counts for at most so many times the median of the round's devices; among three or
            more, who says more than that, or is beyond four times the median, for no more than all others together.
            0: neither.
        max_update_norm: an outcome whose weight section has a larger L2 norm is refused. The default only stops
            what no training produces.
    """

    max_examples: int = setting(100_000, help="A device counts for at most so many examples.", lowest=1, highest=2**53)
    max_weight_ratio: float = setting(
        10.0,
        help="And for at most so many times the round's median; 0: no such limit.",
        lowest=1,
        highest=1e6,
        off=0,
    )
    max_update_norm: float = setting(
        1e6,
        help="Updates with a larger L2 norm are refused.",
        shown="1e6",
        lowest=SMALLEST,
        usual=NORMS,
        why=NORM_HINT,
    )
