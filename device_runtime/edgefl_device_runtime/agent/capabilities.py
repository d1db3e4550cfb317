"""What this device can do, which a server may want to know before it hands out work."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from edgefl.codecs import codec_names
from edgefl.version import __version__
from edgefl.wire.messages import PROTOCOL_VERSION, Correction, Weighting
from edgefl_device_runtime.agent.conditions import SUPPORTED_KINDS

__all__ = ["capabilities"]

_ROUGHLY = 1 << 26


def capabilities(runtimes: Sequence[str] | None) -> dict[str, Any]:
    """What is said at enrolment; nothing that tells who owns the device, nor anything about the data.

    Args:
        runtimes: the interpreters that may be used; None: it is not known what trains.
    """
    found: dict[str, Any] = {
        "edgefl": __version__,
        "protocol": PROTOCOL_VERSION,
        "kinds": [kind.name.lower() for kind in SUPPORTED_KINDS],
        "corrections": [correction.name.lower() for correction in Correction],
        "weightings": [weighting.name.lower() for weighting in Weighting],
        "codecs": list(codec_names()),
        "payloads": [],
        "machine": platform.machine(),
        # The exact number would tell devices apart.
        "memory_bytes": -(-os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _ROUGHLY) * _ROUGHLY,
    }
    if runtimes is not None:
        found["runtimes"] = list(runtimes)
    return found
