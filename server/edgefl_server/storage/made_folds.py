"""Makes of the outcomes that were accepted for a fold what the database is to say: new vectors in files, and figures.

Nothing is decided here, and nothing written that a second time would not be the same: it may be done by any process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.errors import EdgeflError
from edgefl_server.aggregation import Change, Standing
from edgefl_server.storage.blobs import DamagedBlobError
from edgefl_server.storage.merging import Work, merge, starting_point
from edgefl_server.storage.state import Files, put_vector

__all__ = ["Figures", "Intact", "LostStartError", "Made", "make"]


class LostStartError(EdgeflError):
    """The vectors that a fold is to be merged into are not those that were kept, and will not be."""


@dataclass(frozen=True)
class Intact:
    """An outcome that counts: whose it is, its bytes, and its hash."""

    device: str
    size: int
    digest: str


@dataclass(frozen=True)
class Figures:
    """A fold that was merged; see `Folded`. Its vectors are named by their hashes, and on the disk.

    Attributes:
        weights_hash: empty where no weights are made.
        slots: of the strategy.
        difference: to the weights before, encoded; None: devices fetch whole weights.
        num_examples, metric_sums, diagnostics, findings: see there.
    """

    weights_hash: str
    slots: Mapping[str, str]
    difference: bytes | None
    num_examples: int
    metric_sums: Mapping[str, list[float]]
    diagnostics: Mapping[str, float]
    findings: Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """The outcome of making a fold.

    Attributes:
        change, lost: see `Merged`.
        intact: the outcomes that count.
        figures: None when it failed.
    """

    change: Change
    lost: Mapping[str, str]
    intact: Sequence[Intact]
    figures: Figures | None


def make(files: Files, work: Work, closed: Standing) -> Made:
    """Merges a fold, and stores what comes of it.

    Args:
        files: where everything is; temporary files lie in its folder.
        work: what the fold is made of.
        closed: how the fold stands.

    Raises:
        LostStartError: there is nothing to merge it into.
        StorageError: no space.
    """
    try:
        before = starting_point(files, work)
    except DamagedBlobError as error:
        raise LostStartError(error.message) from error
    merged = merge(files, work, before, closed)
    intact = tuple(Intact(each.device, each.size, each.digest) for each in merged.intact)
    folded = merged.folded
    if folded is None:
        return Made(merged.change, merged.lost, intact, None)
    weights_hash, slots, difference = "", dict[str, str](), None
    if work.of.settings.makes_weights:
        weights_hash = put_vector(files, folded.state.weights)
        slots = {name: put_vector(files, vector) for name, vector in folded.state.slots.items()}
        difference = None if merged.difference is None else merged.difference.encode()
    return Made(
        merged.change,
        merged.lost,
        intact,
        Figures(
            weights_hash,
            slots,
            difference,
            folded.num_examples,
            folded.metric_sums,
            folded.diagnostics,
            dict(folded.findings),
        ),
    )
