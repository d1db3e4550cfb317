"""Patience: a run ends when a metric has not got better for so many evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefl_server.aggregation.hyperparameters import SettingError, setting

__all__ = ["Patience", "less_is_better"]

_LESS = ("loss", "error", "mse", "mae", "mape", "msle", "crossentropy", "divergence", "hinge", "poisson")


def less_is_better(metric: str, direction: str = "") -> bool:
    """Whether less of a metric is better.

    Args:
        metric: its name.
        direction: ``up`` or ``down``, as its manifest says; empty: it does not, and the name tells as far as it does.
    """
    return direction == "down" or (not direction and any(word in metric.lower() for word in _LESS))


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The settings of a run that end it early.

    Attributes:
        patience: the run is done when the metric has not got better in so many evaluations in a row; 0: it goes on to
            its last round. Where nothing is evaluated, each round's own metrics count as an evaluation: those of
            training, on the devices that took part.
        patience_metric: which; whether less of it is better, the model file says, or else its name tells.
        patience_least: by how much it has to get better to count.
    """

    patience: int = setting(
        0,
        help="End the run after so many evaluations without improvement.",
        shown="never",
        lowest=0,
        highest=1_000_000,
    )
    patience_metric: str = setting("loss", help="Patience: of which metric.")
    patience_least: float = setting(0.0, help="Patience: improvement that counts.", shown="any", lowest=0, highest=1e6)

    def check_patience(self) -> None:
        """Refuses what has no meaning without patience.

        Raises:
            SettingError: there is something.
        """
        for name, default in (("patience_metric", "loss"), ("patience_least", 0.0)):
            if not self.patience and getattr(self, name) != default:
                raise SettingError(
                    f"{{{name}}} has no meaning without {{patience}}.", hint="Leave it out, or give a {patience}."
                )

    def why_over(self, values: Sequence[float], direction: str = "") -> str:
        """Says why a run ends, since the metric has not got better for long enough; empty: it goes on.

        Args:
            values: of all evaluations, oldest first.
            direction: of the metric, see `less_is_better`.
        """
        if not self.patience or len(values) <= self.patience:
            return ""
        sign = -1.0 if less_is_better(self.patience_metric, direction) else 1.0
        earlier = max(sign * each for each in values[: -self.patience])
        latest = max(sign * each for each in values[-self.patience :])
        if latest > earlier + self.patience_least:
            return ""
        return f"{self.patience_metric} has not got better than {sign * earlier:.6g} for {self.patience} evaluations"
