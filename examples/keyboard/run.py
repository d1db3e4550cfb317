"""Starts the example: ``python examples/keyboard/run.py --out keyboard``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a script, Python only knows this folder; the examples are a package of the folder two above.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from examples.keyboard.demo import main

    main()
