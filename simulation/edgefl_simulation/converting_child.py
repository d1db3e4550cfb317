"""Converts a model in a process of its own: what it is to do is on standard input, what came of it on standard output.

The last line is JSON: ``path``, or ``error`` (its type), ``message`` and ``hint``.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Does it."""
    job = json.load(sys.stdin)
    # What is imported may be the user's own module, beside the program or in the current folder.
    sys.path[:] = [*dict.fromkeys([*job["path"], os.getcwd()])]  # noqa: PTH109 - nothing else is needed of pathlib
    from edgefl.errors import EdgeflError
    from edgefl_simulation.model_sources import Wanted, converted_in_cache

    try:
        wanted = Wanted(job["algorithm"], job["batch_size"])
        answer = {"path": str(converted_in_cache(job["model"], wanted, lambda line: None))}
    except EdgeflError as error:
        answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint or ""}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
