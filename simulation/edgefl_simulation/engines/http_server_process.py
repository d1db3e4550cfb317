"""The process of the http engine's server: `edgefl server start`, which ends when whoever started it does.

python -m edgefl_simulation.engines.http_server_process STATE PORT
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from edgefl.cli.main import main

__all__ = ["serve"]


def serve(state: str, port: str) -> None:
    """Runs a server on this machine until standard input ends.

    Args:
        state: its folder.
        port: where it listens; 0 stands for a free one.
    """
    threading.Thread(target=_stop_at_the_end, daemon=True).start()
    main(["server", "start", "--state", state, "--port", port, "--format", "json"])


def _stop_at_the_end() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # Ctrl-C goes to all processes of a terminal; the simulation's own says what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(*sys.argv[1:])
