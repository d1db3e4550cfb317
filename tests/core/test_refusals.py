from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgefl.wire.refusals import Refusal

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("refusal", Refusal)
def test_a_refusal_is_its_code_wherever_it_is_written_or_compared(refusal: Refusal) -> None:
    code = refusal.value
    assert refusal == code
    assert {refusal: 1}[code] == 1
    assert f"{refusal} {refusal!s}" == f"{code} {code}"
    assert json.dumps(refusal) == json.dumps(code)
    assert refusal.name == code.upper()


def test_every_refusal_is_in_the_protocol() -> None:
    named = set(re.findall(r"`(?:\d{3} )?([a-z_]+)`", PROTOCOL))
    assert {refusal.value for refusal in Refusal} - named == set()
