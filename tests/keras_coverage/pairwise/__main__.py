"""``python -m keras_coverage.pairwise``: tries pairs of settings and writes their part of docs/coverage.md."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from keras_coverage.pairwise.combining import combine_all, found_before
from keras_coverage.pairwise.share import with_combinations
from keras_coverage.pairwise.subjects import SUBJECTS

REPOSITORY = Path(__file__).parents[3]
RECORD = REPOSITORY / ".pairwise.jsonl"
DOCUMENT = REPOSITORY / "docs" / "coverage.md"


def main(only: list[str]) -> int:
    """Tries the subjects with these names, or all; of the others the document keeps what stands there."""
    unknown = [name for name in only if name not in SUBJECTS]
    if unknown:
        print(f"No such class: {', '.join(unknown)}. It is written as in layers.Dense.")
        return 2
    for found in combine_all(only or list(SUBJECTS), RECORD):
        print(f"{found.name}: {found.converted} of {len(found.complaints)}", flush=True)
        for key, complaint in found.complaints.items():
            if complaint:
                print(f"  {key}: {complaint}", flush=True)
    DOCUMENT.write_text(with_combinations(DOCUMENT.read_text(), list(found_before(RECORD))))
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
