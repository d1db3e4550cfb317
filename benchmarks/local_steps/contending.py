"""The contenders as data: what each is called, where it runs, and which models it does not take part in."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

__all__ = ["CONTENDERS", "HERE", "OWN", "PEERS", "PEERS_PYTHON", "Contender", "command"]

HERE = Path(__file__).resolve().parent.parent
PEERS_PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
OWN = "edgefl"
PEERS = ("ONNX Runtime", "PyTorch", "tf.function", "Keras")
"""Families of contenders; a ratio to a family is to the fastest of its forms."""


class Contender(NamedTuple):
    """One way to train.

    Attributes:
        family: of which it is a form.
        form: as its module knows it.
        module: below `contenders`.
        elsewhere: it runs in the peers' environment.
        with_peers: it runs there where there is one, so that all that need no TensorFlow have the same numpy, whose
            version decides over 8 MB of their memory.
        left_out: why it does not take part, by model.
        only: the models that have this form; all where empty.
    """

    family: str
    form: str
    module: str
    elsewhere: bool = False
    with_peers: bool = False
    left_out: dict[str, str] = {}  # noqa: RUF012 (never changed)
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As rows name it."""
        return f"{self.family} {self.form}".strip()


MOBILE = ("mobilenet_v2_head", "mobilenet_v2")
SLOW_XLA = dict.fromkeys(MOBILE, "XLA's convolutions on a CPU take about ten times as long as those of the graph")
CONTENDERS = (
    Contender(OWN, "ai-edge-litert", "edgefl_runtimes", with_peers=True),
    # It has no wheel for Python 3.12 and newer.
    *((Contender(OWN, "tflite-runtime", "edgefl_runtimes"),) if find_spec("tflite_runtime") else ()),
    Contender(OWN, "litert-compiled-model", "edgefl_runtimes", with_peers=True),
    Contender("ONNX Runtime", "", "onnx_runtime", elsewhere=True),
    Contender("PyTorch", "torch.optim.SGD", "pytorch", elsewhere=True),
    Contender("PyTorch", "hand-written", "pytorch", elsewhere=True),
    Contender("PyTorch", "channels last", "pytorch", elsewhere=True, only=MOBILE),
    Contender("tf.function", "graph", "tensorflow"),
    Contender("tf.function", "XLA", "tensorflow", left_out=SLOW_XLA),
    Contender("tf.function", "unrolled", "tensorflow", only=("lstm",)),
    Contender("Keras", "train_on_batch", "tensorflow"),
)


def command(contender: Contender, name: str, threads: int, folder: Path) -> list[str]:
    """Starts the contender's process; to be run in `HERE`."""
    peers = contender.elsewhere or (contender.with_peers and PEERS_PYTHON.exists())
    python = PEERS_PYTHON if peers else sys.executable
    given = [contender.module, contender.form, name, str(threads), str(folder)]
    return [str(python), "-m", "local_steps.serve", *given]
