"""``python -m keras_coverage``: runs every row and writes docs/coverage.md, or says what is wrong with it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from keras_coverage.architectures import ARCHITECTURES
from keras_coverage.families import ROWS
from keras_coverage.measuring import measure, measure_architecture
from keras_coverage.public import SECTIONS, public
from keras_coverage.report import render

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"


def main(only: list[str]) -> int:
    """Runs the rows with these names, or all of them; only a run of all that succeeds writes the document."""
    outcomes, networks, wrong, missing = {}, {}, 0, 0
    for network in ARCHITECTURES:
        if only and network.name not in only:
            continue
        try:
            networks[network.name] = found = measure_architecture(network)
        except Exception as error:
            wrong += 1
            print(f"{network.name}: {type(error).__name__}: {str(error)[:1000]}", flush=True)
        else:
            figures = " ".join(f"{error:.1e}" for error in found.errors.values())
            print(f"{network.name}: {found.size:,} bytes, {found.seconds:.1f} s, {figures}", flush=True)
    for section in SECTIONS:
        for api in public(section):
            if only and api.__name__ not in only:
                continue
            if api not in ROWS:
                print(f"{section}.{api.__name__}: no row", flush=True)
                missing += 1
                continue
            start = time.monotonic()
            try:
                outcomes[api] = measure(ROWS[api], section)
            except Exception as error:
                wrong += 1
                print(f"{section}.{api.__name__}: {type(error).__name__}: {str(error)[:1000]}", flush=True)
            else:
                figures = " ".join(f"{error:.1e}" for error in outcomes[api].errors.values())
                print(
                    f"{section}.{api.__name__}: {ROWS[api].answer} {figures} ({time.monotonic() - start:.1f} s)",
                    flush=True,
                )
    print(f"{len(outcomes)} rows are as they say, {wrong} are not, {missing} are missing")
    if wrong or missing or only:
        return 1 if wrong or missing else 0
    DOCUMENT.write_text(render(outcomes, networks))
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
