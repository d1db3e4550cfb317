"""Asks tflite-runtime for a model's signatures once for each model: every answer of it stays in memory.

Its ``GetSignatureDefs`` hands out dicts and numbers that nobody can let go of: measured with 2.14, the last version
there is, 4.8 kB an answer for a 1-D CNN, 7 kB with what federated algorithms add, in proportion to signatures times
variables. It is asked when a model is loaded and whenever a signature runner is made: three times a round, which was
14 MB in 1,000 rounds. ai-edge-litert keeps nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

__all__ = ["LEAKING", "without_leak"]

LEAKING = "tflite-runtime"
"""The runtime that needs it."""

_REMEMBERED = 64
_answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
"""The last models' answers by graph hash; they lie in memory anyway."""


def without_leak(interpreter: Any, graph_hash: str) -> Any:
    """A class like `interpreter` that asks for the signatures once.

    Args:
        interpreter: tflite-runtime's class ``Interpreter``.
        graph_hash: of the model file that it is going to load. Files with the same hash have the same signatures; an
            empty one: nothing is known of the file.
    """

    class Remembering(interpreter):  # type: ignore[misc]
        _signatures: dict[str, Any] | None = _answers.get(graph_hash)

        def _get_full_signature_list(self) -> dict[str, Any]:
            if self._signatures is None:
                self._signatures = super()._get_full_signature_list()
                if graph_hash:
                    _answers[graph_hash] = self._signatures
                    while len(_answers) > _REMEMBERED:
                        _answers.popitem(last=False)
            return self._signatures

        def get_signature_list(self) -> dict[str, Any]:
            """The names only, as the runtime's own."""
            return {
                name: {what: list(tensors) for what, tensors in signature.items()}
                for name, signature in self._get_full_signature_list().items()
            }

    return Remembering
