import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgefl.atomic import write_bytes, write_text
from edgefl.errors import StorageError


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_in_one_step(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old", durable=durable)
    write_text(path, "new", durable=durable)
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_permissions_follow_the_umask_unless_they_are_given(tmp_path: Path) -> None:
    write_bytes(tmp_path / "open", b"")
    (tmp_path / "usual").touch()
    write_bytes(tmp_path / "secret", b"", mode=0o600)
    assert (tmp_path / "open").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Could not write .*No such file") as caught:
        write_bytes(tmp_path / "missing" / "file", b"")
    assert caught.value.hint


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    # A limit on file size makes write(2) fail as a full disk does: in a child, as it cannot be lifted again.
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = f"""
import resource, signal
from edgefl.atomic import write_bytes
from edgefl.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes({str(path)!r}, bytes(100_000), durable=True)
except StorageError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_the_umask_of_a_process_with_threads_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(mask: int) -> int:
        raise AssertionError(mask)

    monkeypatch.setattr("os.umask", refuse)
    write_bytes(tmp_path / "open", b"")
    write_bytes(tmp_path / "shared", b"", mode=0o640)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o640
