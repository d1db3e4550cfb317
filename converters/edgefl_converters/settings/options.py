"""Says what a model file is made for, beyond training what was compiled."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgefl.algorithms import ALGORITHMS, algorithm
from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.targets import ALL, included
from edgefl_converters.flatbuffer.frozen_storage import DYNAMIC, FORMATS
from edgefl_converters.settings.fine_tuning import FineTuning
from edgefl_converters.settings.input_shapes import TargetShape

__all__ = ["BatchSizes", "Options", "batch_sizes", "fine_tuning_document", "options_of"]

BatchSizes = int | Sequence[int]
"""Rows of every batch, or several such numbers for a file with signatures for each of them."""


@dataclass(frozen=True)
class Options:
    """Settings of a conversion that end up in the model file.

    Attributes:
        fine_tuning: what is trained; only written down here, `fine_tuned` applies it.
        local: patterns of parameters that never leave a device, as in `FineTuning`: personal layers (Arivazhagan et al.
            2019, FedPer) or the normalisation of each device's own data (Li et al. 2021, FedBN).
        algorithms: federated algorithms that the file shall support, of `ALGORITHMS`.
        quantize_frozen: how frozen weights are stored, of `frozen_storage.FORMATS`; None for float32.
        target: the runtimes that the file is made for, a name of `edgefl.targets`; `lint` checks it.
        micro_batch: rows of a batch that are computed at once, one micro-batch after the other; None for all.
        without_passes: names of passes over the file that are left out, see `flatbuffer.pipeline`.
        further_batch_sizes: smaller batch sizes that the file shall have signatures for too, ascending.
        target_shape: of a row of the targets of losses that take others than follows from the output.
    """

    fine_tuning: FineTuning = field(default_factory=FineTuning)
    local: str | Sequence[str] = ()
    algorithms: str | Sequence[str] = ()
    quantize_frozen: str | None = None
    target: str = ALL
    micro_batch: int | None = None
    without_passes: str | Sequence[str] = ()
    further_batch_sizes: Sequence[int] = ()
    target_shape: TargetShape | None = None

    def __post_init__(self) -> None:
        included(self.target)
        rows = self.micro_batch
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise InvalidSettingError(
                f"A micro-batch must be a whole number of rows of at least 1, got {rows!r}.",
                hint="Give a divisor of the batch size, for example 8 for a batch of 32.",
            )
        if rows is not None and self.further_batch_sizes:
            raise InvalidSettingError(
                "A file of several batch sizes computes each of them at once, got `micro_batch` too.",
                hint="Leave `micro_batch` out, or give one `batch_size`.",
            )
        if self.quantize_frozen not in (None, *FORMATS):
            raise InvalidSettingError(
                f"Frozen weights can be stored as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got "
                f"{self.quantize_frozen!r}.",
                hint="What is trained stays float32 in any case.",
            )
        if self.quantize_frozen == DYNAMIC and any(each.runtime != "ai-edge-litert" for each in included(self.target)):
            raise InvalidSettingError(
                "Only ai-edge-litert computes products of frozen weights in int8: tflite-runtime 2.14 knows no kernels "
                "with a scale for each channel, and takes longer for others than in float32.",
                hint="Give `target='litert-2'` if all devices have ai-edge-litert, or choose `quantize_frozen='int8'`.",
            )
        for name in ("local", "algorithms", "without_passes"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))

    def require_equal_parts(self, batch_size: int) -> None:
        """Raises InvalidSettingError where a batch cannot be cut into micro-batches of one size."""
        if self.micro_batch is None or batch_size % self.micro_batch == 0:
            return
        divisors = [str(rows) for rows in range(1, batch_size + 1) if batch_size % rows == 0]
        raise InvalidSettingError(
            f"A micro-batch must divide the batch size, got {self.micro_batch} for a batch of {batch_size}.",
            hint=f"Choose one of {', '.join(divisors)}, or another `batch_size`.",
        )


def options_of(manifest: ModelManifest) -> Options:
    """Options that make a file like an existing one."""
    return Options(
        FineTuning.from_json(manifest.fine_tuning),
        [glob.escape(f"/{parameter.name}") for parameter in manifest.local_parameters],
        [name for name in ALGORITHMS if algorithm(name).is_reason_for(manifest)],
        manifest.fine_tuning.get("quantize_frozen"),
        manifest.target,
        manifest.micro_batch,
        further_batch_sizes=manifest.further_batch_sizes,
        target_shape=_target_shapes(manifest),
    )


def _target_shapes(manifest: ModelManifest) -> dict[str, tuple[int, ...]]:
    """The shape of a row of each target, as the file takes them."""
    targets = {each.name for each in manifest.targets}
    return {each.name: each.shape[1:] for each in manifest.signatures["train"].inputs if each.name in targets}


def batch_sizes(given: BatchSizes) -> tuple[int, tuple[int, ...]]:
    """Returns the largest of the wanted batch sizes, and the smaller ones, ascending.

    Raises:
        InvalidSettingError: one is no whole number of at least 1, or stands there twice.
    """
    sizes = [given] if isinstance(given, (int, str)) or not isinstance(given, Sequence) else list(given)
    wrong = [size for size in sizes if isinstance(size, bool) or not isinstance(size, int) or size < 1]
    if wrong or not sizes or len(set(sizes)) < len(sizes):
        raise InvalidSettingError(
            f"The batch size must be a whole number of at least 1, got {given!r}.",
            hint="Choose the number of rows that a device trains on at once, for example 32, or several different "
            "ones: [1, 8, 32].",
        )
    *smaller, largest = sorted(sizes)
    return largest, tuple(smaller)


def fine_tuning_document(options: Options) -> dict[str, Any]:
    """Returns what the manifest says about the choice of what is trained."""
    storage = {} if options.quantize_frozen is None else {"quantize_frozen": options.quantize_frozen}
    return {**options.fine_tuning.as_json(), **storage}
