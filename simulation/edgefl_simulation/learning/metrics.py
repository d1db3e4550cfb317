"""The metrics of a round, as attributes and as a mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["Metrics"]


class Metrics(Mapping[str, float]):
    """Values by name, which are attributes too: ``metrics.loss`` and ``metrics["loss"]``.

    Args:
        values: ``loss``, the model's metrics by the names that it was compiled with, ``num_examples``.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):  # whoever copies a thing asks for such names before there are values
            raise AttributeError(name)
        if name in self._values:
            return self._values[name]
        raise AttributeError(f"There is no metric {name!r}; there are {', '.join(self._values)}.")

    def __getstate__(self) -> dict[str, float]:
        return self._values

    def __setstate__(self, values: dict[str, float]) -> None:
        self._values = values

    def __repr__(self) -> str:
        return f"<{', '.join(f'{name}={value:.6g}' for name, value in self._values.items())}>"
