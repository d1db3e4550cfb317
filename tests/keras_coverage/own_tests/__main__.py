"""``python -m keras_coverage.own_tests CHECKOUT``: converts layers of Keras's own tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its products of quantized matrices end the process

from keras_coverage.own_tests.collecting import require_checkout
from keras_coverage.own_tests.running import own_tests
from keras_coverage.own_tests.writing import with_own_tests

REPOSITORY = Path(__file__).parents[3]
RECORD = REPOSITORY / ".own-tests.jsonl"
DOCUMENT = REPOSITORY / "docs" / "coverage.md"


def main(arguments: list[str]) -> int:
    """Runs the cases of a checkout, as far as the record does not know them."""
    if len(arguments) != 1:
        print("Give the path of one checkout of Keras, at the tag of the installed version.")
        return 2
    try:
        require_checkout(Path(arguments[0]))
    except ValueError as error:
        print(error)
        return 2
    found = []
    for case in own_tests(Path(arguments[0]), RECORD):
        found.append(case)
        print(f"{case.key}: {case.complaint or 'as in Keras'} ({case.seconds:.1f} s of processors)", flush=True)
    DOCUMENT.write_text(with_own_tests(DOCUMENT.read_text(), found))
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
