"""Reads a model file without an interpreter: its manifest, its initial weights, whether it is intact."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import ModelFileError, storage_error
from edgefl.hashing import new_sha256, weights_hash
from edgefl.layout import Parameter
from edgefl.manifest import ModelManifest
from edgefl.wire.generated import tflite_container_generated as container

__all__ = ["METADATA_NAME", "ModelFile", "graph_hash"]

METADATA_NAME = "EDGEFL_MANIFEST"
_NOT_OURS = "Convert the Keras model with `edgefl convert`; a plain inference model cannot be trained."
_DAMAGED = "The file is damaged: copy it again, or make it again with `edgefl convert`."


class ModelFile:
    """The bytes of a model file and what can be read from them.

    Args:
        data: the whole file; kept, not copied.
        name: what to call it in errors.

    Raises:
        ModelFileError: not a TFLite file, or without a manifest, or cut short.
        FormatVersionError: written by an edgefl of another major format version.
    """

    def __init__(self, data: bytes | memoryview, name: str = "the model") -> None:
        self.data = data
        self.name = name
        if len(data) < 8 or bytes(data[4:8]) != b"TFL3":
            raise ModelFileError(
                f"{name} is not a TFLite file: expected the identifier 'TFL3' at byte 4.", hint=_NOT_OURS
            )
        self._container = container.Model.GetRootAs(data, 0)
        self.manifest_buffer = self._find_manifest()
        start, end = self._buffer_range(self.manifest_buffer)
        self.manifest = ModelManifest.from_json(bytes(data[start:end]))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ModelFile:
        """Reads a file.

        Raises:
            StorageError: it cannot be read.
            ModelFileError: see the class.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise storage_error(error, "read", path) from error
        return cls(data, str(path))

    @classmethod
    def map(cls, path: str | os.PathLike[str]) -> ModelFile:
        """Opens a file without holding a copy of it in memory; an interpreter that maps it shares the pages.

        Raises:
            StorageError: it cannot be read.
            ModelFileError: see the class.
        """
        try:
            with Path(path).open("rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                data = b"" if empty else memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise storage_error(error, "read", path) from error
        return cls(data, str(path))

    def initial_weights(self) -> NDArray[np.float32]:
        """The weights that the file holds, as a new flat vector of shape ``[layout.size]``."""
        layout = self.manifest.layout
        return layout.pack({parameter.name: self.initial_value(parameter) for parameter in layout})

    def initial_value(self, parameter: Parameter) -> NDArray[np.float32]:
        """One parameter's initial value, a read-only view of the file."""
        start, end = self._buffer_range(parameter.buffer)
        if end - start != 4 * parameter.size:
            raise ModelFileError(
                f"{self.name}: parameter {parameter.name!r} expects {4 * parameter.size} bytes, "
                f"buffer {parameter.buffer} has {end - start}.",
                hint=_DAMAGED,
            )
        return np.frombuffer(self.data[start:end], "<f4").reshape(parameter.shape)

    def verify(self) -> None:
        """Checks the graph and weights hashes against the content.

        Raises:
            ModelFileError: a byte of the graph or of a weight is not what was written.
        """
        actual = self.compute_graph_hash()
        if actual != self.manifest.graph_hash:
            raise ModelFileError(
                f"{self.name}: the graph's hash is {actual[:12]}…, its manifest says {self.manifest.graph_hash[:12]}….",
                hint=_DAMAGED,
            )
        actual = self.compute_weights_hash()
        if actual != self.manifest.weights_hash:
            raise ModelFileError(
                f"{self.name}: the weights' hash is {actual[:12]}…, its manifest says "
                f"{self.manifest.weights_hash[:12]}….",
                hint=_DAMAGED,
            )

    def compute_graph_hash(self) -> str:
        """The graph hash of the content, whatever the manifest says."""
        buffers = [parameter.buffer for parameter in self.manifest.parameters]
        return graph_hash(self.data, map(self._buffer_range, [*buffers, self.manifest_buffer]))

    def compute_weights_hash(self) -> str:
        """`weights_hash` of `initial_weights`, without a copy of them."""
        return weights_hash(*map(self.initial_value, self.manifest.layout))

    def _find_manifest(self) -> int:
        try:
            for index in range(self._container.MetadataLength()):
                entry = self._container.Metadata(index)
                if entry.Name() == METADATA_NAME.encode():
                    return int(entry.Buffer())
        except (struct.error, IndexError, ValueError, TypeError) as error:
            raise ModelFileError(f"{self.name} cannot be parsed as a TFLite file.", hint=_DAMAGED) from error
        raise ModelFileError(
            f"{self.name} is a TFLite file without the metadata entry {METADATA_NAME}.", hint=_NOT_OURS
        )

    def _buffer_range(self, index: int) -> tuple[int, int]:
        """First byte and the byte after the last of a buffer's data."""
        try:
            if not 0 <= index < self._container.BuffersLength():
                raise IndexError(index)
            table = self._container.Buffers(index)._tab
            field = table.Offset(4)
            start = int(table.Vector(field)) if field else 0
            end = start + (int(table.VectorLen(field)) if field else 0)
        except (struct.error, IndexError, ValueError, TypeError) as error:
            raise ModelFileError(f"{self.name} has no readable buffer {index}.", hint=_DAMAGED) from error
        if end > len(self.data):
            raise ModelFileError(
                f"{self.name} is cut short: buffer {index} ends at byte {end}, the file at {len(self.data)}.",
                hint=_DAMAGED,
            )
        return start, end


def graph_hash(data: bytes | memoryview, ranges: Iterable[tuple[int, int]]) -> str:
    """SHA-256 of a file with some byte ranges read as zeros.

    Args:
        data: the whole file.
        ranges: first byte and the byte after the last, of the parameters' buffers and of the manifest's; those of
            length zero count for nothing.
    """
    digest, position = new_sha256(), 0
    view = memoryview(data)
    for start, end in sorted(set(ranges)):
        if start == end:
            continue
        digest.update(view[position:start])
        digest.update(bytes(end - start))
        position = end
    digest.update(view[position:])
    return str(digest.hexdigest())
