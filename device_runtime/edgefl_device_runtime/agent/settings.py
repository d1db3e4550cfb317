"""Every waiting time and limit of the agent, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Times are in seconds.

    Attributes:
        connect_timeout: a Pi on a bad mobile link needs several seconds for TCP and TLS; longer means nobody is there.
        read_timeout: silence on an open connection that means that the other side is gone. A server answers every
            call at once except the poll, and sends large bodies in pieces.
        poll_wait: how long the server may hold a poll. Below the 30 s after which home routers and proxies drop idle
            connections.
        first_retry: pause after the first failed attempt; a server that is restarted is back within about a second.
        longest_retry: pauses double up to here: a fleet must not press on a server that is down, yet find it within
            a minute.
        jitter: share of every pause that is random, so that devices cut off together do not come back together.
        rest_without_advice: pause after "no work" when the server does not say when to come back.
        longest_rest: a server's ``Retry-After`` is honoured up to here; beyond it is taken for a mistake.
        first_lease_renewal: tasks shorter than this never renew their lease, which saves a request.
        lease_share: a lease is renewed after this part of it, so that two renewals may be lost.
        first_rest_after_trouble: pause after a task that failed, was declined or refused; doubles with each in a row,
            so that a broken model does not drain a battery.
        longest_rest_after_trouble: … up to here.
        piece: bytes of a download that are held in memory at once.
        models_kept: model files in the cache: a device serves many runs over its life, few at the same time.
        weights_kept: weights in the cache: each round brings new ones; the previous is kept for a task handed out
            again.
        runs_kept: runs of which local parameters and control variates are kept: a device works for few at the same
            time, and those that are over are not told apart while another one is active.
    """

    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    poll_wait: float = 25.0
    first_retry: float = 0.25
    longest_retry: float = 60.0
    jitter: float = 0.5
    rest_without_advice: float = 5.0
    longest_rest: float = 3600.0
    first_lease_renewal: float = 2.0
    lease_share: float = 0.3
    first_rest_after_trouble: float = 1.0
    longest_rest_after_trouble: float = 600.0
    piece: int = 1 << 16
    models_kept: int = 3
    weights_kept: int = 2
    runs_kept: int = 8
