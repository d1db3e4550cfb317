"""Says what each layer of a Keras model would become, without a file and without verification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgefl_converters.blame.layer_reports import as_json
from edgefl_converters.building.blaming import build_or_blame
from edgefl_converters.models.loading import load_compiled, shares_layers
from edgefl_converters.models.loss_fit import require_fitting_loss
from edgefl_converters.models.requirements import require_convertible
from edgefl_converters.settings.input_shapes import InputShape
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.precision import in_float32
from edgefl_converters.training_step.selection import fine_tuned
from edgefl_converters.training_step.specification import specify

__all__ = ["explain"]


def explain(
    model: Any,
    *,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    batch_size: int = 32,
    input_shape: InputShape | None = None,
    options: Options | None = None,
    on_layers: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """See `edgefl_converters.explain`."""
    options = options or Options()
    loaded = load_compiled(model, loss=loss, optimizer=optimizer, metrics=metrics, input_shape=input_shape)
    require_convertible(loaded)
    require_fitting_loss(loaded)
    with (
        in_float32(loaded) as single,
        fine_tuned(single, options.fine_tuning, own=not shares_layers(single, model)) as wanted,
    ):
        specification = specify(wanted, batch_size=batch_size, options=options)
        return as_json(build_or_blame(specification, on_layers).layers)
