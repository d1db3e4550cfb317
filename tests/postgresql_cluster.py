"""A PostgreSQL server of the tests' own: a private cluster on a free port, where PostgreSQL is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from server_process import free_port

__all__ = ["PostgresqlCluster", "programs"]


def programs() -> Path | None:
    """The folder of initdb and postgres; None: PostgreSQL is not installed. Debian keeps it out of the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: int(each.parts[-3]))
    return versions[-1].parent if versions else None


class PostgresqlCluster:
    """A cluster in a folder of its own. PostgreSQL refuses root: as root, it runs as nobody."""

    def __init__(self) -> None:
        bin = programs()
        if bin is None:
            pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        self._bin = bin
        # Not pytest's folder: that one is closed to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="edgefl-postgresql-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._free: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody")
        self._run("initdb", "-D", self.folder / "data", "-U", "edgefl", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        options = ["-D", self.folder / "data", "-p", self.port, "-k", self.folder, "-c", "listen_addresses=127.0.0.1"]
        options += ["-c", "shared_buffers=16MB", "-c", "max_connections=100"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._words("postgres", options), stdout=log, stderr=log)
        for _ in range(600):
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends the server: SIGINT breaks off all connections, SIGQUIT is a crash."""
        if self._process is not None:
            postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, how)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def url(self, name: str) -> str:
        return f"postgresql://edgefl@127.0.0.1:{self.port}/{name}"

    def make(self, *, migrated: bool = True) -> str:
        """A database that is empty, or without any tables; its URL."""
        if migrated and self._free:
            return self._free.pop()
        self._count += 1
        name = f"edgefl{self._count}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def give_back(self, url: str) -> None:
        """The next one who asks may have it: to make a database takes much longer than to empty one."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")  # what refuses changes does not refuse these
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            connection.execute("; ".join(f"DELETE FROM {name}" for (name,) in found if "alembic" not in name).encode())
        self._free.append(url)

    def _words(self, program: str, options: Sequence[object]) -> list[str]:
        words = [str(self._bin / program), *map(str, options)]
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        return [*as_nobody, *words] if os.geteuid() == 0 else words

    def _run(self, program: str, *options: object) -> None:
        done = subprocess.run(self._words(program, options), capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stderr
