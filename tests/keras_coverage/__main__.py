"""``python -m keras_coverage``: runs every row and writes docs/coverage.md, or says what is wrong with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from keras_coverage.architectures import ARCHITECTURES
from keras_coverage.families import ROWS
from keras_coverage.public import SECTIONS, public
from keras_coverage.report import longest, render
from keras_coverage.running import NETWORKS, run_all
from keras_coverage.sections import kept_sections

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"


def main(only: list[str]) -> int:
    """Runs the rows with these names, or all of them; only a run of all that succeeds writes the document."""
    tasks = [(NETWORKS, each.name) for each in ARCHITECTURES]
    tasks += [(section, api.__name__) for section in SECTIONS for api in public(section) if api in ROWS]
    missing = [f"{section}.{api.__name__}" for section in SECTIONS for api in public(section) if api not in ROWS]
    tasks = [task for task in tasks if not only or task[1] in only]
    outcomes, wrong = {}, 0
    for (section, name), (outcome, complaint, seconds) in run_all(tasks):
        if complaint:
            wrong += 1
        else:
            outcomes[section, name] = outcome
        figures = complaint or " ".join(f"{error:.1e}" for error in outcome.errors.values()) or "as it says"
        print(f"{section}.{name}: {figures} ({seconds:.1f} s)", flush=True)
    of_rows = {f"{section}.{name}": each for (section, name), each in outcomes.items() if section != NETWORKS}
    of_networks = {name: each for (section, name), each in outcomes.items() if section == NETWORKS}
    for name, taken in longest(of_rows, of_networks):
        print(f"{taken:6.1f} s of processors: {name}", flush=True)
    print(f"{len(outcomes)} rows are as they say, {wrong} are not; without a row: {', '.join(missing) or 'none'}")
    if wrong or missing or only:
        return int(bool(wrong or missing))
    kept = kept_sections(DOCUMENT.read_text())
    DOCUMENT.write_text(
        render(
            {api: outcomes[section, api.__name__] for section in SECTIONS for api in public(section)},
            {each.name: outcomes[NETWORKS, each.name] for each in ARCHITECTURES},
        )
        + kept
    )
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
