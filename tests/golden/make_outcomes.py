"""Makes the golden set's tasks and vectors, and the outcomes for the architecture that it runs on.

Run as `python tests/golden/make_outcomes.py` after `make_models.py`. On another architecture `--outcomes-only` adds its
outcomes beside those that there are.
"""

from __future__ import annotations

import sys

from golden_set import CASES, HERE, architecture, outcome_file, outcomes, task, vectors_text, write_data

from edgefl_device_runtime.training.interpreter import installed_runtimes


def main() -> None:
    """Writes them."""
    if "--outcomes-only" not in sys.argv:
        write_data()
        for name in CASES:
            (HERE / f"{name}.task.eflm").write_bytes(task(name).encode())
        (HERE / "vectors.json").write_text(vectors_text(), encoding="utf-8")
    for runtime in installed_runtimes():
        for name, outcome in outcomes(runtime):
            outcome_file(name, runtime, architecture()).write_bytes(outcome.encode())


if __name__ == "__main__":
    main()
