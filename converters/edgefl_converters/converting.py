"""The way from a Keras model to a checked file on disk."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.atomic import write_bytes, write_text
from edgefl.errors import InvalidSettingError, VerificationError, storage_error
from edgefl.inspecting.reports import report_path
from edgefl_converters.blame.checked_causes import Causes, checked_causes
from edgefl_converters.blame.layer_reports import as_json
from edgefl_converters.building.blaming import build_or_blame, options_of_a_piece, with_smallest_layer
from edgefl_converters.building.building import BuiltModel, build
from edgefl_converters.building.room import require_room
from edgefl_converters.models.loading import load_compiled, shares_layers
from edgefl_converters.models.loss_fit import require_fitting_loss
from edgefl_converters.models.normalization import IDENTITY, normalize, read_statistics, waiting
from edgefl_converters.models.requirements import require_convertible
from edgefl_converters.results import ConversionResult
from edgefl_converters.settings.input_shapes import InputShape
from edgefl_converters.settings.options import Options
from edgefl_converters.stages import measured_stages, stage
from edgefl_converters.training_step.precision import in_float32, mixed_layers
from edgefl_converters.training_step.selection import fine_tuned
from edgefl_converters.training_step.specification import Specification, specify
from edgefl_converters.verification.agreement import RefusedDataError, check_agreement, compare
from edgefl_converters.verification.evidence import evidence
from edgefl_converters.verification.judging import Comparison
from edgefl_converters.verification.made_up_batches import draw_batches
from edgefl_converters.verification.report import VerificationReport
from edgefl_converters.verification.runtimes import runtimes_for
from edgefl_converters.verification.storage_cost import storage_cost

__all__ = ["convert"]

_PROBE_BYTES = 1 << 16
"""Written and removed before the work begins, to learn whether the folder takes a file: the smallest has as many."""


def convert(
    model: Any,
    out: str | os.PathLike[str],
    *,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    batch_size: int = 32,
    input_shape: InputShape | None = None,
    options: Options | None = None,
    normalization: str | os.PathLike[str] | None = None,
    verify: bool = True,
    on_progress: Callable[[str], None] | None = None,
    on_layers: Callable[[dict[str, Any]], None] | None = None,
) -> ConversionResult:
    """See `edgefl_converters.convert`."""
    tell = on_progress or (lambda line: None)
    path = Path(out)
    _check_destination(path, model)
    later = str(normalization) == IDENTITY
    statistics = None if normalization is None or later else read_statistics(normalization)
    with measured_stages() as stages:
        with stage("loading"):
            loaded = load_compiled(model, loss=loss, optimizer=optimizer, metrics=metrics, input_shape=input_shape)
            if statistics is not None:
                tell(f"normalising as the fleet's data says in {', '.join(normalize(loaded, statistics))}")
            require_convertible(loaded, waiting=waiting(loaded) if later else ())
            require_fitting_loss(loaded)
        built, report = _converted(loaded, model, batch_size, options or Options(), verify, tell, on_layers)
        _write(path, built.data, report)
    return ConversionResult(path, built.manifest, report, dict(stages.seconds))


def _converted(
    loaded: Any,
    model: Any,
    batch_size: int,
    options: Options,
    verify: bool,
    tell: Callable[[str], None],
    on_layers: Callable[[dict[str, Any]], None] | None,
) -> tuple[BuiltModel, dict[str, Any]]:
    """Converts a model that was loaded from what a user gave."""
    halved = mixed_layers(loaded)
    if halved:
        names = " and ".join(sorted(set(halved.values())))
        tell(f"what the model computes in {names} is computed in float32: devices train in float32")
    with (
        in_float32(loaded) as single,
        fine_tuned(single, options.fine_tuning, own=not shares_layers(single, model)) as wanted,
    ):
        specification = specify(wanted, batch_size=batch_size, options=options)
        require_room(specification, verify=verify)
        built, report = _checked(specification, verify, tell, on_layers)
    report["mixed_precision"] = {"layers": halved, "trained_in": "float32"} if halved else None
    return built, report


def _checked(
    specification: Specification,
    verify: bool,
    tell: Callable[[str], None],
    on_layers: Callable[[dict[str, Any]], None] | None,
) -> tuple[BuiltModel, dict[str, Any]]:
    """Builds a file, and trains it beside Keras if it is to be verified."""
    tell("tracing and converting")
    options = specification.options
    built = build_or_blame(specification, on_layers)
    if built.manifest.of_whole_batches:
        tell(f"devices train on full batches: {_listed(built.manifest.of_whole_batches)} of all rows together")
    report: dict[str, Any] = {
        "bytes": len(built.data),
        "graph_hash": built.manifest.graph_hash,
        "layers": as_json(built.layers),
        "of_whole_batches": list(built.manifest.of_whole_batches),
        "target": options.target,
        "evidence": [asdict(each) for each in evidence(options.target, None)],
        "verification": None,
    }
    further: dict[str, VerificationReport] = {}
    if verify:
        names = ", ".join(f"{each.name} {each.version}" for each in runtimes_for(options.target)) or "no runtime"
        tell(f"training beside Keras on {names}")
        try:
            verification = compare(specification, built.float32)
            _require(verification, built, specification)
            for size in options.further_batch_sizes:
                tell(f"training in batches of {size} beside Keras")
                sized = specification.of_batch_size(size)
                further[str(size)] = compare(sized, built.float32)
                _require(further[str(size)], built, sized)
        except RefusedDataError:
            raise
        except VerificationError as error:
            tell("it differs; looking for the smallest layer that does")
            raise with_smallest_layer(
                error, specification.model, lambda small: _verification_error(small, specification.batch_size, options)
            ) from error
        report["verification"] = verification.as_json()
        report["evidence"] = report["verification"].pop("evidence")
        if further:
            report["further_batch_sizes"] = {size: each.as_json() for size, each in further.items()}
        if options.quantize_frozen is not None:
            costs = storage_cost(specification, built.manifest, built.float32, built.data)
            report["quantize_frozen"] = {
                "storage": options.quantize_frozen,
                "float32_bytes": len(built.float32),
                "runtimes": [each.as_json() for each in costs],
            }
    return built, report


def _listed(whole: Sequence[str]) -> str:
    """One or several things with the verb."""
    *others, last = whole
    return f"{', '.join(others)} and {last} are computed" if others else f"{last} is computed"


def _verification_error(model: Any, batch_size: int, options: Options) -> Exception | None:
    try:
        check_agreement(model, build(model, batch_size=batch_size, options=options_of_a_piece(options)).data).require()
    except VerificationError as error:
        return error
    except Exception:
        return None  # the small model itself is at fault
    return None


def _require(verification: VerificationReport, built: BuiltModel, specification: Specification) -> None:
    """Raises if the verification failed, with the layer to look at."""
    try:
        verification.require()
    except VerificationError as error:
        failed = next(report for report in verification.runtimes if report.ran and not report.passed)
        causes = _causes(specification, verification.partial_rows)
        if causes.unsteady:
            raise VerificationError(
                error.message,
                hint=f"Nothing was written. In Keras itself, {causes.unsteady} computes something else each time it is "
                "called with the same rows: have it draw by keras.random with a SeedGenerator, or not at all.",
            ) from error
        if failed.failures and all(map(_of_padding, failed.failures)):
            raise VerificationError(
                error.message,
                hint="Nothing was written. Only batches with padding differ, those filled up with rows of weight 0. "
                f"{causes.of_padding}",
            ) from error
        if built.manifest.micro_batch is not None:
            found = f" {causes.of_padding}" if causes.mixing or causes.added else ""
            raise VerificationError(
                error.message,
                hint=f"Nothing was written. Convert without `micro_batch`.{found}",
            ) from error
        maker = _maker(failed.first_failure.name, built) if failed.first_failure else None
        if maker is None:
            raise
        lowered = ", ".join(built.layers[maker].lowered) or "none"
        raise VerificationError(
            error.message,
            hint=f"Nothing was written. Look at {maker} and what follows it (lowered ops there: {lowered}): please "
            "report the model, and replace that layer until then.",
            layer=built.layers[maker].layer,
        ) from error


def _causes(specification: Specification, real: int | None) -> Causes:
    (batch,) = draw_batches(specification, 1, np.random.default_rng(0))
    return checked_causes(specification, batch.inputs, real or max(1, specification.batch_size // 2))


def _of_padding(comparison: Comparison) -> bool:
    return comparison.kind in ("partial batch", "evaluate") or comparison.name.startswith("partial ")


def _maker(name: str, built: BuiltModel) -> str | None:
    """The layer that a parameter or one of its slots belongs to, as the report calls it."""
    own = name.removeprefix("optimizer/")
    for parameter, path in built.paths.items():
        if f"{own}/".startswith(f"{parameter}/"):
            around = path.split("/")[:-1]
            return next((maker for maker, each in built.layers.items() if each.layer in around), None)
    return None


def _write(path: Path, data: bytes, report: Mapping[str, Any]) -> None:
    """Writes the report and the model, or neither."""
    beside = report_path(path)
    write_text(beside, json.dumps(report, indent=2) + "\n")
    try:
        write_bytes(path, data)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _check_destination(path: Path, model: Any) -> None:
    """Refuses what cannot or must not be written before minutes are spent on what to write."""
    if isinstance(model, (str, os.PathLike)) and path.exists() and Path(model).exists() and path.samefile(model):
        raise InvalidSettingError(f"{path} is the model itself.", hint="Give the .tflite file another name.")
    if path.is_dir():
        raise InvalidSettingError(f"{path} is a folder, expected the name of a .tflite file.")
    if not path.parent.is_dir():
        raise storage_error(FileNotFoundError(2, "the folder does not exist"), "write", path)
    if report_path(path).is_dir():
        raise InvalidSettingError(
            f"{report_path(path)} is a folder, the report is to be written there.",
            hint="Remove it or choose another `out`.",
        )
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise storage_error(error, "write", path) from error
