"""Builds a model file, and says which layer is to blame where that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgefl.errors import EdgeflError, UnsupportedModelError, VerificationError, listed
from edgefl_converters.blame.layer_reports import LayerReport, as_json
from edgefl_converters.blame.shrinking import shrink
from edgefl_converters.blame.suggestions import suggestion
from edgefl_converters.building.building import BuiltModel, build, build_specified
from edgefl_converters.lint import UnfitTargetError, require_clean
from edgefl_converters.settings.options import Options
from edgefl_converters.stages import stage
from edgefl_converters.training_step.specification import Specification

__all__ = ["build_or_blame", "options_of_a_piece", "with_smallest_layer"]


def build_or_blame(specification: Specification, on_layers: Callable[[dict[str, Any]], None] | None) -> BuiltModel:
    """Builds and lints a model file; where that fails the error names the smallest layer that fails on its own.

    Args:
        specification: of the model and the options.
        on_layers: called with what became of each layer, also when the conversion fails.

    Raises:
        EdgeflError: whatever `build` and `require_clean` raise.
    """
    reached: list[Mapping[str, LayerReport]] = []

    def tell(layers: Mapping[str, LayerReport]) -> None:
        reached.append(layers)
        if on_layers is not None:
            on_layers(as_json(layers))

    try:
        built = build_specified(specification, on_layers=tell)
        with stage("checking ops"):
            require_clean(built.data, built.manifest, built.makers)
    except UnfitTargetError:
        raise  # it names the layer already
    except UnsupportedModelError as error:
        if not reached:
            raise  # about the model as a whole, such as an unknown dimension: no layer is to blame
        batch_size, options = specification.batch_size, specification.options
        raise with_smallest_layer(
            error, specification.model, lambda small: _building_error(small, batch_size, options)
        ) from error
    return built


def options_of_a_piece(options: Options) -> Options:
    """The options that make sense for a model of one layer."""
    return Options(target=options.target, micro_batch=options.micro_batch, without_passes=options.without_passes)


def _building_error(model: Any, batch_size: int, options: Options) -> Exception | None:
    try:
        built = build(model, batch_size=batch_size, options=options_of_a_piece(options))
        require_clean(built.data, built.manifest)
    except UnsupportedModelError as error:
        return error
    except Exception:
        return None  # the small model itself is at fault
    return None


def with_smallest_layer(
    error: UnsupportedModelError | VerificationError, model: Any, fails: Callable[[Any], Exception | None]
) -> EdgeflError:
    """The error with the layer that fails on its own, or with what is known of the others where none is found."""
    sound: dict[str, bool] = {}

    def note(name: str, tried: bool) -> None:
        sound.setdefault(name, tried)

    try:
        with stage("finding the layer"):
            piece = shrink(model, fails, first=error.layer, on_sound=note)
    except Exception:
        return error  # never worse than the plain error
    if piece is None:
        return _without_layer(error, sound)
    ops = piece.error.ops if isinstance(piece.error, UnsupportedModelError) else ()
    advice = suggestion(piece.kind, ops)
    kept = error.hint if isinstance(error, VerificationError) or advice is None else None
    message, hint = f"{error.message} It fails on its own too: {piece}.", " ".join(filter(None, (kept, advice))) or None
    if isinstance(error, UnsupportedModelError):
        return type(error)(message, hint=hint, layer=piece.name, ops=ops or error.ops)
    return VerificationError(message, hint=hint, layer=piece.name)


def _without_layer(
    error: UnsupportedModelError | VerificationError, sound: Mapping[str, bool]
) -> UnsupportedModelError | VerificationError:
    """The error where no layer was found to fail on its own: it says of which that is known."""
    tried = [repr(name) for name, was_tried in sound.items() if was_tried]
    if tried:
        left = len(sound) - len(tried)
        more = f"; {left} more were not tried, to keep this short" if left else ""
        told = f"None of these was found to fail on its own: {listed(tried, 4)}{more}."
        error.hint = f"{error.hint} {told}" if error.hint else told
    return error
