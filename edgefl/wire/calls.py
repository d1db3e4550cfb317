"""The calls of docs/protocol.md beside their messages: the headers' names, and the limits that both sides hold to."""

from __future__ import annotations

__all__ = [
    "ACTIVE_RUNS",
    "DIFFERENCE",
    "DIGEST",
    "ENDED_RUNS",
    "INSTANCE",
    "LENGTH",
    "LONGEST_ASKED",
    "LONGEST_WAIT_SECONDS",
    "MOST_ASKED",
    "MOST_HELD",
    "OFFSET",
    "PINS",
    "ROUND",
]

ACTIVE_RUNS = "EdgeFL-Active-Runs"
"""The header of a poll's answer without work: how many runs the population has that are not over."""
ENDED_RUNS = "EdgeFL-Ended-Runs"
"""The header of a poll's answer: those of the runs asked about that are over, separated by commas."""
INSTANCE = "EdgeFL-Instance"
"""The header of every call of a device: 128 random bits that its process drew at its start."""
DIGEST, LENGTH, OFFSET = "EdgeFL-Digest", "EdgeFL-Length", "EdgeFL-Offset"
"""The headers of an upload that may be continued: the message's SHA-256 and size, and where in it the body begins."""
PINS = "EdgeFL-Pins"
"""The header of a poll's answer over TLS: pins of the certificate that the server shows, and of the one to come."""
ROUND = "EdgeFL-Round"
"""The header of weights for an operator: the round after which they are."""

DIFFERENCE = "edgefl"
"""The instance manipulation (RFC 3229) of a device that takes a difference to weights that it holds."""

MOST_HELD = 8
"""A device says of so many weights at most that it holds them."""
LONGEST_WAIT_SECONDS = 30.0
"""A poll may be held for so long; home routers and proxies drop connections that are idle for longer."""
MOST_ASKED, LONGEST_ASKED = 64, 64
"""A poll may ask about so many runs, whose ids have so many characters."""
