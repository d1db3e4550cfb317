"""The process of one contender: `python -m local_steps.serve MODULE FORM MODEL THREADS FOLDER`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from serving import serve


def main() -> None:
    """Serves until standard input ends."""
    module, form, name, threads, folder = sys.argv[1:]
    contender = import_module(f"local_steps.contenders.{module}")
    serve(lambda: contender.make_step(name, Path(folder), int(threads), form))


if __name__ == "__main__":
    main()
