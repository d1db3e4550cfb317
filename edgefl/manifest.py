"""The manifest, in which a model file describes itself: the JSON that lies inside it (docs/model-file.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from edgefl.errors import EdgeflError, FormatVersionError, ModelFileError
from edgefl.hashing import canonical_json
from edgefl.layout import Parameter, ParameterLayout

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "ROW_SIGNATURES",
    "Metric",
    "ModelManifest",
    "Signature",
    "StateVariable",
    "Target",
    "TensorSpec",
]

FORMAT = "edgefl-model"
FORMAT_VERSION = (1, 6)
"""Major and minor. A reader refuses another major; fields of a newer minor are kept and ignored."""


_LINE = 160
"""Characters of names that a manifest shows of itself."""


ROW_SIGNATURES = ("train", "evaluate", "infer", "gradient")
"""The signatures that take rows, of which a file may have one for each of several batch sizes: ``train_8``."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        name: what it is: an input of the Keras model, a parameter, ``sample_weight``, ``loss``, a metric's state.
        tensor: its key in the TFLite signature, which allows fewer characters.
        shape: dimensions, with the static batch first where it has one.
        dtype: numpy's name of the type.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """A callable of the file: its tensors by name."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True)
class Target:
    """Values that the model is trained towards, one kind per output.

    Attributes:
        name: the input of ``train`` and ``evaluate`` that takes it.
        output: the model output that it is compared with.
        classes: number of classes when the target is an integer label in ``[0, classes)``, else None.
        bounds: the smallest and the largest number that its loss is made for, as 0 and 1 of binary cross-entropy, which
            grows without end below and above; None for a loss of any numbers, and in older files.
        ignored: of labels, the number of positions that the loss leaves out, whether it is a class or not; None where
            it leaves out none, and in older files.
    """

    name: str
    output: str
    classes: int | None = None
    bounds: tuple[float, float] | None = None
    ignored: int | None = None


@dataclass(frozen=True)
class Metric:
    """A metric as a sum of states.

    Attributes:
        name: as compiled.
        finaliser: how the summed states become the value: a name in `edgefl.finalisers`.
        states: outputs of ``train`` and ``evaluate`` that hold this batch's states.
        settings: what the finaliser needs to know besides, as plain JSON values.
        direction: ``up`` where more is better, ``down`` where less is, empty where Keras does not say.
    """

    name: str
    finaliser: str
    states: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    direction: str = ""


@dataclass(frozen=True)
class StateVariable:
    """Something that training changes and that is not a parameter: an optimizer slot or counter."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, repr=False)
class ModelManifest:
    """Everything that a trainer, a server or an exporter needs to know about a model file.

    Attributes:
        parameters: in the order of the Keras model's variables.
        signatures: by name; see docs/model-file.md for what each does.
        inputs: the Keras model's inputs, in its order.
        outputs: the Keras model's outputs, in its order.
        input_structure: how the model nests its inputs: lists and dicts with the position of an input in ``inputs`` at
            each leaf; None for a plain list of them, as in older files.
        output_structure: the same for the outputs.
        targets: one per output that has a loss.
        index_sizes: by input, how many entries an Embedding has in which its numbers are looked up: they are whole
            numbers from 0 on, and smaller. One for each value of a row, in row-major order, where they differ, None
            for those that are looked up nowhere.
        batch_size: rows of every batch; static. Of a file with several sizes, the largest.
        further_batch_sizes: the smaller ones, ascending, for which there are signatures with the size in their names.
        micro_batch: rows that are computed at once where that is fewer than the batch; None for all.
        mixes_rows: True when a row's result depends on the others (batch normalisation, a loss that is one number for a
            batch), so that padding is felt.
        of_whole_batches: losses and metrics, in words, that are computed from all rows of a batch together, in
            evaluation too.
        loss: the compiled loss as Keras serialises it.
        optimizer: the compiled optimizer as Keras serialises it.
        learning_rate: the compiled one, used when a caller gives none.
        metrics: those that travel as sums.
        state: what ``get_state`` returns beside the parameters.
        frozen: Keras paths of the variables that became constants of the graph.
        keras_config: the model as Keras serialises it, without weights.
        fine_tuning: how it was chosen what is trained, as the converter writes it; empty for the whole model.
        custom_objects: names that Keras cannot rebuild without their source.
        producer: versions of what wrote the file.
        target: the runtimes that it was made for, a name of `edgefl.targets`.
        graph_hash: SHA-256 of the file with the parameters' buffers and the manifest zeroed.
        layout_hash: `ParameterLayout.hash`.
        weights_hash: SHA-256 of the initial weights as a flat vector.
        unknown: fields written by a newer minor version, kept as they were.
    """

    parameters: tuple[Parameter, ...]
    signatures: Mapping[str, Signature]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    targets: tuple[Target, ...]
    batch_size: int
    further_batch_sizes: tuple[int, ...] = ()
    index_sizes: Mapping[str, int | tuple[int | None, ...]] = field(default_factory=dict)
    input_structure: Any = None
    output_structure: Any = None
    micro_batch: int | None = None
    mixes_rows: bool = False
    of_whole_batches: tuple[str, ...] = ()
    loss: Any = None
    optimizer: Any = None
    learning_rate: float = 0.01
    metrics: tuple[Metric, ...] = ()
    state: tuple[StateVariable, ...] = ()
    frozen: tuple[str, ...] = ()
    keras_config: Any = None
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    custom_objects: tuple[str, ...] = ()
    producer: Mapping[str, str] = field(default_factory=dict)
    target: str = "all"
    graph_hash: str = "0" * 64
    layout_hash: str = "0" * 64
    weights_hash: str = "0" * 64
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        layout, names = self.layout, ", ".join(f"{name} {getattr(self, name)}" for name in ("inputs", "outputs"))
        return (
            f"<ModelManifest: {len(self.parameters)} parameters ({layout.weight_size:,} weights and "
            f"{layout.statistic_size:,} statistics travel), {_short(names)}, batch of {self.batch_size}, "
            f"signatures {', '.join(self.signatures)}>"
        )

    @cached_property
    def layout(self) -> ParameterLayout:
        """The flat vector of the shared parameters."""
        return ParameterLayout(self.parameters)

    @property
    def draws_random_numbers(self) -> bool:
        """True when ``train`` takes a seed."""
        return any(spec.name == "seed" for spec in self.signatures["train"].inputs)

    @property
    def has_proximal_term(self) -> bool:
        """True when ``train`` takes ``mu``: the weights are pulled to those that ``set_reference`` noted."""
        return any(spec.name == "mu" for spec in self.signatures["train"].inputs)

    @property
    def has_correction(self) -> bool:
        """True when ``train`` adds to the gradient what ``set_correction`` was given."""
        return "set_correction" in self.signatures

    @property
    def has_gradient(self) -> bool:
        """True when the gradient can be had without a step."""
        return "gradient" in self.signatures

    @property
    def local_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that never leave a device, in the manifest's order."""
        return tuple(parameter for parameter in self.parameters if not parameter.shared)

    def of_batch_size(self, size: int) -> ModelManifest:
        """The same file as one of another of its batch sizes: ``train`` is then what the file calls ``train_8``.

        Args:
            size: `batch_size` or one of `further_batch_sizes`.
        """
        if size == self.batch_size:
            return self
        sized = {name: self.signatures[f"{name}_{size}"] for name in ROW_SIGNATURES if name in self.signatures}
        return replace(self, batch_size=size, further_batch_sizes=(), signatures={**self.signatures, **sized})

    def batch_size_for(self, rows: int) -> int:
        """The smallest of the file's batch sizes that holds so many rows; the largest where none does."""
        return next((size for size in self.further_batch_sizes if size >= rows), self.batch_size)

    def to_json(self) -> bytes:
        """The manifest as canonical JSON; equal manifests give equal bytes."""
        document = asdict(self)
        document.update(document.pop("unknown"))
        hashes = {name: document.pop(f"{name}_hash") for name in ("graph", "layout", "weights")}
        return canonical_json({"format": FORMAT, "format_version": list(FORMAT_VERSION), "hashes": hashes, **document})

    @classmethod
    def from_json(cls, data: bytes | str) -> ModelManifest:
        """Reads a manifest.

        Raises:
            FormatVersionError: the major version is another one.
            ModelFileError: it is not a manifest, or a field is missing or malformed.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"The manifest is not JSON: {error}.", hint=_DAMAGED) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ModelFileError(f"The manifest does not say it is of format {FORMAT!r}.", hint=_DAMAGED)
        try:
            major, minor = (int(number) for number in document.pop("format_version"))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelFileError("The manifest has no format_version [major, minor].", hint=_DAMAGED) from error
        if major != FORMAT_VERSION[0]:
            raise FormatVersionError(
                f"The model file has format version {major}.{minor}, this edgefl reads {FORMAT_VERSION[0]}.x.",
                hint="Use an edgefl of the same major format version, or convert the model again.",
            )
        try:
            return cls._from_document(document)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelFileError(
                f"The manifest lacks or mistypes a field: {type(error).__name__}: {error}.", hint=_DAMAGED
            ) from error

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> ModelManifest:
        document.pop("format")
        hashes = document.pop("hashes")
        known = {name: document.pop(name) for name in _FIELDS if name in document}
        known["parameters"] = tuple(_read(Parameter, each) for each in known["parameters"])
        known["signatures"] = {
            name: Signature(
                tuple(_read(TensorSpec, each) for each in signature["inputs"]),
                tuple(_read(TensorSpec, each) for each in signature["outputs"]),
            )
            for name, signature in known["signatures"].items()
        }
        if "train" not in known["signatures"]:
            raise KeyError("signatures.train")
        for name, item in (("targets", Target), ("metrics", Metric), ("state", StateVariable)):
            known[name] = tuple(_read(item, each) for each in known.get(name, ()))
        for name in ("inputs", "outputs", "frozen", "custom_objects", "of_whole_batches"):
            known[name] = tuple(str(each) for each in known.get(name, ()))
        for structure, names in (("input_structure", known["inputs"]), ("output_structure", known["outputs"])):
            if known.get(structure) is not None and sorted(_leaves(known[structure])) != list(range(len(names))):
                raise ValueError(f"{structure} {known[structure]!r:.40}")
        known["batch_size"] = int(known["batch_size"])
        if known["batch_size"] < 1:
            raise ValueError(f"batch_size {known['batch_size']}")
        sizes = known["further_batch_sizes"] = tuple(map(int, known.get("further_batch_sizes", ())))
        if list(sizes) != sorted(set(sizes)) or not all(1 <= size < known["batch_size"] for size in sizes):
            raise ValueError(f"further_batch_sizes {sizes!r:.40}")
        for name in (f"{name}_{size}" for name in ROW_SIGNATURES for size in sizes if name in known["signatures"]):
            known["signatures"][name]  # raises where one is missing
        rows = {spec.name: prod(spec.shape[1:]) for spec in known["signatures"]["train"].inputs}
        known["index_sizes"] = {name: _sizes(each, rows[name]) for name, each in known.get("index_sizes", {}).items()}
        rate = known.get("learning_rate", 0.0)
        if isinstance(rate, (bool, str)):
            raise ValueError(f"learning_rate {rate!r:.40}")
        float(rate)  # raises where no number can hold it
        known.update({f"{name}_hash": str(hashes[name]) for name in ("graph", "layout", "weights")})
        manifest = cls(**known, unknown=document)
        try:
            layout = manifest.layout
        except EdgeflError as error:
            raise ModelFileError(error.message, hint=_DAMAGED) from error
        if layout.hash != manifest.layout_hash:
            raise ModelFileError("The manifest's layout hash does not fit its parameters.", hint=_DAMAGED)
        return manifest


_DAMAGED = "The file is damaged or was not made by edgefl; make it again with `edgefl convert`."
_FIELDS = tuple(name for name in ModelManifest.__dataclass_fields__ if name != "unknown" and not name.endswith("_hash"))


def _leaves(structure: Any) -> Iterator[int]:
    """The positions at the leaves of lists and dicts."""
    if isinstance(structure, (list, dict)):
        for each in structure.values() if isinstance(structure, dict) else structure:
            yield from _leaves(each)
    else:
        yield int(structure)


def _sizes(value: Any, values: int) -> int | tuple[int | None, ...]:
    """One number of entries, or one for each of a row's values."""
    several = isinstance(value, list)
    numbers = [each for each in value if each is not None] if several else [value]
    if (several and len(value) != values) or not all(type(each) is int and each > 0 for each in numbers):
        raise ValueError(f"index_sizes {value!r:.40}")
    return tuple(value) if several else int(value)


def _short(text: str) -> str:
    """A text that may be long, cut to a line."""
    return text if len(text) <= _LINE else f"{text[:_LINE]}…"


def _read(kind: type[Any], document: dict[str, Any]) -> Any:
    """Builds a dataclass from the fields it knows; a newer minor version may have added others."""
    known = {name: document[name] for name in kind.__dataclass_fields__ if name in document}
    for name, value in known.items():
        if kind.__dataclass_fields__[name].type == "str" and not isinstance(value, str):
            raise TypeError(f"{name} {value!r:.40}")
    for name in ("shape", "states"):
        if name in known:
            known[name] = tuple(known[name])
    if known.get("bounds") is not None:
        low, high = map(float, known["bounds"])
        if not low < high:
            raise ValueError(f"bounds {known['bounds']!r:.40}")
        known["bounds"] = low, high
    if type(known.get("ignored", 0)) not in (int, type(None)):
        raise ValueError(f"ignored {known['ignored']!r:.40}")
    return kind(**known)
