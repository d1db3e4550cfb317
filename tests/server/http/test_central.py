"""What an evaluation on the operator's data leaves on the disk when its server is killed goes with the next one."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest

from edgefl_server.http import central
from edgefl_server.storage import CentralWork


def test_what_a_killed_server_left_is_gone_once_the_next_one_looks_for_evaluations(fleet) -> None:
    left = fleet.state.folder / "evaluating"
    left.mkdir()
    (left / "weights.npy").write_bytes(b"0" * 100)

    async def begin() -> None:
        looking = asyncio.create_task(central.evaluate_centrally(SimpleNamespace(state=fleet.state)))
        while left.exists():
            await asyncio.sleep(0.01)
        looking.cancel()

    asyncio.run(asyncio.wait_for(begin(), 60))


@pytest.mark.parametrize("code", [0, 1, -9])
def test_nothing_is_left_of_an_evaluation_however_its_process_ends(tmp_path, monkeypatch, code) -> None:
    (tmp_path / "file").write_bytes(b"0" * 16)
    folder, seen = tmp_path / "evaluating", []

    async def run(command):
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / "weights.npy.part").touch()
        return code, b'{"metrics": {"loss": 1.0}, "examples": 2}', "so"

    monkeypatch.setattr(central, "_run", run)
    work = CentralWork("r", 1, *[tmp_path / "file"] * 3)
    found = asyncio.run(central._evaluated(work, folder))
    assert found == (({"loss": 1.0}, 2, "") if code == 0 else ({}, 0, "so"))
    assert seen == [["data.npz", "model.tflite", "weights.npy"]] * (3 if code < 0 else 1)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            '{"error": "DataError", "message": "Expected (64,).", "hint": "Reshape.", "exit_code": 22}',
            "Expected (64,). Reshape.",
        ),
        ('{"error": "DataError", "message": "Expected (64,).", "hint": null, "exit_code": 22}', "Expected (64,)."),
        ("Segmentation fault", "Segmentation fault"),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_why_there_is_no_evaluation_is_told_in_a_sentence(written, said) -> None:
    program = f"import sys; print('one warning', file=sys.stderr); print({written!r}, file=sys.stderr); sys.exit(22)"
    code, _, why = asyncio.run(central._run([sys.executable, "-c", program]))
    assert (code, why) == (22, said or "one warning")
