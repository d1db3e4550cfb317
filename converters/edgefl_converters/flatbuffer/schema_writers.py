"""Objects of TensorFlow's generated schema that write themselves as runtimes and files want it."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["AlignedBuffer", "SharedQuantization"]

_ALIGNMENT = 16


class AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """The generated code aligns data to one byte; runtimes map it and expect 16."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated name
        """Writes it with a builder and returns where it lies."""
        data = None
        if self.data is not None and len(self.data):
            raw = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(raw), _ALIGNMENT)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class SharedQuantization(schema.QuantizationParametersT):  # type: ignore[misc]
    """The generated code writes what several tensors refer to once for each."""

    _written: tuple[Any, Any] | None = None

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated name
        """Writes it with a builder, at the first call with that, and returns where it lies."""
        if self._written is None or self._written[0] is not builder:
            self._written = builder, super().Pack(builder)
        return self._written[1]
