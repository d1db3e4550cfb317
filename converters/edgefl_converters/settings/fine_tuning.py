"""Says what of a model is trained: chosen by name, by depth, biases only, or low-rank adapters instead of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgefl.errors import InvalidSettingError

__all__ = ["FineTuning"]


@dataclass(frozen=True)
class FineTuning:
    """Says what is trained; everything else becomes a constant of the graph and does not travel.

    A pattern is a glob. It matches a variable by its name in the model file (``conv2d/kernel``), by the name of a layer
    that holds it (``conv2d``, ``block_16*``), or by the layer's class (``BatchNormalization``). A ``/`` in front stands
    for the model: ``/dense`` is no ``dense`` within another layer. What `trainable` and `last_layers` say and the
    adapters of `lora_rank` are added up; where none is given, everything counts that the model itself trains. Then
    `frozen` is taken away, and `biases_only` keeps biases.

    A layer of which nothing is trained is frozen as ``layer.trainable = False`` freezes it in Keras: BatchNormalization
    then normalises with its moving averages, which no longer move.

    Attributes:
        trainable: patterns of what is trained.
        frozen: patterns of what is not.
        last_layers: so many layers with weights, counted from the output, are trained; those within layers count.
        biases_only: of what is trained only biases, and the offsets of normalisations (Ben Zaken et al. 2021, BitFit).
        lora_rank: adds adapters of this rank (Hu et al. 2021, LoRA) by Keras's ``enable_lora`` and freezes the weights
            that they stand for.
        lora_targets: patterns of the layers that get adapters: Dense, EinsumDense, Embedding, convolutions; also inside
            others, such as the projections of MultiHeadAttention.
        lora_alpha: adapters count ``lora_alpha / lora_rank`` times; by default once.
    """

    trainable: Sequence[str] = ()
    frozen: Sequence[str] = ()
    last_layers: int | None = None
    biases_only: bool = False
    lora_rank: int | None = None
    lora_targets: Sequence[str] = ("*",)
    lora_alpha: float | None = None

    def __post_init__(self) -> None:
        for name in ("trainable", "frozen", "lora_targets"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        for name, value in (("last_layers", self.last_layers), ("lora_rank", self.lora_rank)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidSettingError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        if self.lora_alpha is not None and not 0 < self.lora_alpha < math.inf:
            raise InvalidSettingError(f"`lora_alpha` must be a number above 0, got {self.lora_alpha!r}.")
        if self.lora_rank is None and (self.lora_alpha is not None or self.lora_targets != ("*",)):
            raise InvalidSettingError(
                "`lora_alpha` and `lora_targets` say how adapters are, but `lora_rank` is missing.",
                hint="Give the rank of the adapters, for example `lora_rank=4`.",
            )
        if self.lora_rank is not None and self.biases_only:
            raise InvalidSettingError(
                "Adapters are no biases: `biases_only` would freeze what `lora_rank` adds.",
                hint="To train biases beside adapters, give a pattern that means them: `trainable='bias'`.",
            )

    @property
    def is_default(self) -> bool:
        """True where the model is trained as it is."""
        return self == FineTuning()

    def as_json(self) -> dict[str, Any]:
        """As plain values, for the manifest; what is default is left out."""
        default = asdict(FineTuning())
        given = {name: value for name, value in asdict(self).items() if value != default[name]}
        lora = {"rank": given.pop("lora_rank", None), "alpha": given.pop("lora_alpha", None)}
        targets = given.pop("lora_targets", self.lora_targets)
        document = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        return document if self.lora_rank is None else {**document, "lora": {**lora, "targets": list(targets)}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FineTuning:
        """Reads what `as_json` wrote."""
        plain = {name: value for name, value in document.items() if name in cls.__dataclass_fields__}
        lora = document.get("lora")
        if lora is not None:
            plain.update(lora_rank=lora["rank"], lora_alpha=lora["alpha"], lora_targets=lora["targets"])
        return cls(**plain)
