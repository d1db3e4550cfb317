"""From plays to model files: the one process with TensorFlow, ``python -m examples.keyboard.preparing OUT``.

It trains the base, or takes the one that an earlier run has left in the cache, and converts it three times: for devices
that train adapters, that keep some of these to themselves, and that train the whole network.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import edgefl
from edgefl.hashing import sha256
from examples.keyboard import model as models
from examples.keyboard.files import cache, files

__all__ = ["KINDS", "PERSONAL", "RANK", "prepare"]

RANK = 4
BATCH_SIZE = 8
PERSONAL = ("head",)
"""The layers whose adapters stay on the device in ``personal.tflite``."""

KINDS: Mapping[str, Mapping[str, Any]] = {
    "adapters": {"fine_tuning": edgefl.FineTuning(lora_rank=RANK)},
    "personal": {"fine_tuning": edgefl.FineTuning(lora_rank=RANK), "local": PERSONAL},
    "whole": {},
}
"""The model files by name, and what each is converted with."""


def prepare(out: Path, steps: int, width: int, blocks: int, *, verify: bool = True) -> None:
    """Writes ``base.keras``, ``base.json`` and a model file of each kind.

    Args:
        out: the folder, which is there.
        steps: of the base's training.
        width: of the model.
        blocks: of the model.
        verify: whether each file is trained beside Keras before it is written.

    Raises:
        EdgeflError: the plays are not installed, or a conversion fails.
    """
    base = cache() / f"{_key(steps, width, blocks)}.keras"
    if base.exists():
        print(f"the base is in the cache: {base}", flush=True)
    else:
        models.pretrain(base, steps, width, blocks)
    for suffix in (".keras", ".json"):
        shutil.copyfile(base.with_suffix(suffix), (out / "base").with_suffix(suffix))
    for kind, settings in KINDS.items():
        edgefl.convert(
            str(out / "base.keras"),
            files(out)[kind],
            batch_size=BATCH_SIZE,
            verify=verify and kind != "personal",  # whose graph is that of the adapters
            on_progress=lambda line, kind=kind: print(f"{kind}.tflite: {line}", flush=True),
            **settings,
        )


def _key(steps: int, width: int, blocks: int) -> str:
    """What the base follows from: the settings, the modules that make it, and the versions that compute it."""
    sources = [Path(models.__file__).with_name(f"{name}.py").read_text() for name in ("model", "plays", "windows")]
    made_with = [f"{name} {version(name)}" for name in ("keras", "tensorflow")]
    return sha256(json.dumps([steps, width, blocks, *made_with, *sources]).encode())[:16]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains the base and converts it for devices.")
    parser.add_argument("out", type=Path, help="a folder that is there")
    parser.add_argument("--steps", type=int, default=models.STEPS, help="of the base's training")
    parser.add_argument("--width", type=int, default=models.WIDTH, help="of the model")
    parser.add_argument("--blocks", type=int, default=models.BLOCKS, help="of the model")
    parser.add_argument("--no-verify", action="store_true", help="do not train the files beside Keras")
    arguments = parser.parse_args()
    prepare(arguments.out, arguments.steps, arguments.width, arguments.blocks, verify=not arguments.no_verify)


if __name__ == "__main__":
    main()
