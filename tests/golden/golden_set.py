"""The golden set: tasks on small data, and what a device answers; see docs/protocol.md, "The golden set"."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.hashing import sha256, weights_hash
from edgefl.model_file import ModelFile
from edgefl.targets import distribution_of
from edgefl.wire.messages import Correction, ExtraVector, Outcome, SectionCodec, Task, TaskKind, Weighting
from edgefl_device_runtime.tasks import ModelTrainer, Received, Remembered, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.randomness import row_order, step_seeds

HERE = Path(__file__).parent
ROWS, INPUTS, CLASSES, BATCH = 21, 6, 3, 8
HALF = (SectionCodec("delta", "float16", 1), SectionCodec("statistics", "float32", 2))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one_step": ("dropout", {"max_steps": 1}),
    "fedavg": ("dropout", {"epochs": 2, "clip_norm": 0.25}),
    "weighted": ("dropout", {"max_steps": 4, "batch_size": 5, "codecs": HALF, "learning_rate": 0.03125}),
    "fedprox": ("dropout", {"epochs": 2, "mu": 0.5}),
    "scaffold": ("dropout", {"epochs": 2, "correction": Correction.SCAFFOLD}),
    "scaffold_again": ("dropout", {"epochs": 1, "correction": Correction.SCAFFOLD, "continues": "scaffold"}),
    "feddyn": ("dropout", {"epochs": 2, "correction": Correction.FEDDYN, "mu": 0.125}),
    "gradient": ("dropout", {"kind": TaskKind.GRADIENT}),
    "evaluate": ("dropout", {"kind": TaskKind.EVALUATE}),
    "normalised": ("normalised", {"epochs": 2}),
}
"""By name: the model file, and what the task asks for."""


def array(name: str) -> Any:
    """One of the files of data."""
    kind = {"x": "<f4", "y": "<i4", "sample_weight": "<f4", "control": "<f4"}[name]
    found = np.fromfile(HERE / f"{name}.bin", kind)
    return found.reshape(ROWS, INPUTS) if name == "x" else found


def write_data() -> None:
    """Writes the files of data, which are drawn once."""
    random = np.random.default_rng(20)
    weights = random.integers(0, 4, ROWS) / 2
    weights[:2] = 0, 1
    size = ModelFile.read(HERE / "dropout.tflite").manifest.layout.weight_size
    for name, values in (
        ("x", random.normal(size=(ROWS, INPUTS)).astype("<f4")),
        ("y", random.integers(0, CLASSES, ROWS).astype("<i4")),
        ("sample_weight", weights.astype("<f4")),
        ("control", (0.01 * random.normal(size=size)).astype("<f4")),
    ):
        (HERE / f"{name}.bin").write_bytes(values.tobytes())


def task(name: str) -> Task:
    """The task of a case, which starts from the model file's initial weights."""
    model, asked = CASES[name]
    file = ModelFile.read(HERE / f"{model}.tflite")
    weights = file.initial_weights()
    correction = asked.get("correction", Correction.NONE)
    made = Task(
        population="golden",
        run="golden",
        task_id=name,
        cohort=1,
        fold=1,
        minimum_cohort=1,
        weighting=Weighting.EXAMPLES if correction is Correction.NONE else Weighting.UNIFORM,
        model_hash=sha256((HERE / f"{model}.tflite").read_bytes()),
        model_bytes=(HERE / f"{model}.tflite").stat().st_size,
        graph_hash=file.manifest.graph_hash,
        layout_hash=file.manifest.layout_hash,
        base_weights_hash=weights_hash(weights),
        base_weights_bytes=4 * weights.size,
        seed=0xFEDCBA9876543210,
        continues="",
    )
    if correction is Correction.SCAFFOLD:
        control = array("control")
        made = replace(made, extra_vectors=(ExtraVector("control", weights_hash(control), control.nbytes),))
    return replace(made, **asked)


def outcomes(runtime: str) -> Iterator[tuple[str, Outcome]]:
    """What this device answers to every case, in their order: a later one may go on from an earlier one's memory."""
    remembered: Remembered = {}
    trainers: dict[str, ModelTrainer] = {}
    for name, (model, _) in CASES.items():
        if model not in trainers:
            trainers[model] = ModelTrainer(TrainableModel(HERE / f"{model}.tflite", runtime=runtime))
        trainer, wanted = trainers[model], Task.decode((HERE / f"{name}.task.eflm").read_bytes())
        data = {"x": array("x"), "y": array("y")}
        if name == "weighted":
            data["sample_weight"] = array("sample_weight")
        vectors = {each.name: array(each.name) for each in wanted.extra_vectors}
        received = Received(ModelFile.read(HERE / f"{model}.tflite").initial_weights(), vectors)
        result = perform(wanted, trainer, received, data, remembered)
        remembered = result.remembered
        yield name, replace(result.outcome, trainer="")


def vectors() -> dict[str, Any]:
    """Orders of rows and seeds of steps, computed by the device's own code."""
    cases = [(0, 0, 5), (1, 0, 21), (1, 1, 21), (0xFEDCBA9876543210, 0, ROWS), (0xFEDCBA9876543210, 1, ROWS)]
    cases.append((2**64 - 1, 1000, 9))
    return {
        "orders": [
            {"seed": str(seed), "epoch": epoch, "rows": rows, "order": row_order(rows, seed, epoch).tolist()}
            for seed, epoch, rows in cases
        ],
        "step_seeds": [
            {"seed": str(seed), "epoch": epoch, "seeds": step_seeds(6, seed, epoch).tolist()}
            for seed, epoch, _ in cases
        ],
    }


def architecture() -> str:
    """What the bits of a runtime's float sums depend on: the machine, and on x86 how wide its vectors are."""
    if platform.machine() != "x86_64":
        return platform.machine()
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    return "x86_64-" + next((each for each in ("avx512f", "avx2", "avx") if each in flags), "sse")


def outcome_file(name: str, runtime: str, where: str) -> Path:
    """Where the outcome of a case lies, as a runtime computed it on an architecture; one library has the same bits."""
    return HERE / f"{name}.outcome.{where}.{distribution_of(runtime)}.eflm"


def vectors_text() -> str:
    """The file of vectors."""
    return json.dumps(vectors(), indent=1) + "\n"
