"""The contenders as data: where each lives, what it runs, and how many rounds of it fit into half a minute."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from fleets.job import Job

__all__ = ["CONTENDERS", "OWN", "YARDSTICK", "Contender", "run"]

HERE = Path(__file__).resolve().parent.parent
ENVIRONMENTS = HERE.parent / ".venvs"
OWN, YARDSTICK = "edgefl", "FedJAX"


class Contender(NamedTuple):
    """One way to emulate the fleet.

    Attributes:
        script: below ``fleets``, with its arguments.
        environment: below ``.venvs``; empty: that of this process.
        rounds: of a turn, by model.
    """

    script: str
    environment: str
    rounds: dict[str, int]

    @property
    def python(self) -> Path:
        """The path of its Python."""
        return ENVIRONMENTS / self.environment / "bin" / "python" if self.environment else Path(sys.executable)

    @property
    def is_there(self) -> bool:
        """Whether its environment has been made."""
        return self.python.exists()


CONTENDERS = {
    OWN: Contender("with_edgefl.py", "", {"2nn": 120, "fedavg_cnn": 7}),
    "naive loop": Contender("naive_loop.py", "", {"2nn": 90, "fedavg_cnn": 7}),
    YARDSTICK: Contender("with_fedjax.py", "fedjax", {"2nn": 60, "fedavg_cnn": 7}),
    "pfl-research": Contender("with_pfl.py", "pfl", {"2nn": 25, "fedavg_cnn": 7}),
    "Flower, PyTorch": Contender("with_flower.py pytorch", "flower-pytorch", {"2nn": 20, "fedavg_cnn": 7}),
    "Flower, Keras": Contender("with_flower.py keras", "flower-keras", {"2nn": 10, "fedavg_cnn": 7}),
}
"""With the slower ones a turn of few rounds takes as long as one of many with the others."""


def run(name: str, job: Job, under: str = "") -> dict[str, Any]:
    """Lets a contender do a job.

    Args:
        name: a key of `CONTENDERS`.
        job: that is to be done.
        under: a command that runs its process, such as ``taskset -c 0,1``.

    Returns:
        Its figures, see `Watch.finish`.
    """
    contender = CONTENDERS[name]
    # Peers do not see edgefl, which would not run with their versions of what both need.
    path = [str(HERE), *([] if contender.environment else [os.environ.get("PYTHONPATH", "")])]
    script, *arguments = shlex.split(contender.script)
    done = subprocess.run(
        [*shlex.split(under), contender.python, HERE / "fleets" / script, *arguments],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
