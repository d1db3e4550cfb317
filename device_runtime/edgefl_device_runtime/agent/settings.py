"""Every waiting time and limit of the agent, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from edgefl.wire.calls import MOST_ASKED

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Times are in seconds.

    Attributes:
        connect_timeout: a Pi on a bad mobile link needs several seconds for TCP and TLS; longer means nobody is there.
        read_timeout: silence on an open connection that means that the other side is gone. A server answers every
            call at once except the poll, and sends large bodies in pieces.
        send_timeout: for one piece of a request. It waits for room in the send buffer, of which Linux frees a third at
            once: with the defaults this suffices for 1 kB/s.
        slowest: bytes a second. An answer may take the read time-out and, beyond, the time that its bytes take at this
            rate: enough for GPRS, and an end for an answer that only drips. The wait for the answer to an upload is
            longer by the time that what may be in buffers on the way takes at this rate.
        send_piece: bytes of a request that are handed to the network at once.
        send_buffer: asked of the kernel for a connection. Small, so that what was handed over was also sent, give or
            take this; large enough for 1 MB/s at 50 ms.
        buffered: bytes of an upload that modems and routers may still hold after the last piece was handed over; the
            measurements of bufferbloat of home uplinks find up to about this.
        stop_timeout: for telling the server that an open task is given back, when the process is told to stop:
            whoever sends SIGTERM sends SIGKILL some seconds later.
        longest_control_answer: bytes of an answer that is no Task and no download; the server's own are below 1 kB.
        longest_task: bytes of a Task; 1 kB today, and room for lists of vectors.
        longest_download: bytes of a model or of weights when the server does not say how many, and at most: more than a
            .tflite file can have.
        spare_disk: bytes that downloads and what is kept of runs leave free on the disk: the system and the data
            also need some.
        poll_wait: how long the server may hold a poll. Below the 30 s after which home routers and proxies drop idle
            connections.
        first_retry: pause after the first failed attempt; a server that is restarted is back within about a second.
        longest_retry: pauses double up to here: a fleet must not press on a server that is down, yet find it within
            a minute.
        remind: how often the owner is told that the server is still away: once an hour is a page of log for a day.
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
        runs_asked: runs that are asked about in one poll, whether they are over; what the protocol allows.
        progress_pause: time between two lines about a training under way.
        status_pause: mean time between two writes of the status file, at least: memory cards wear out.
        status_burst: so many of them may come at once, each for something new that is being done or went wrong.
        history_kept: tasks in the status file.
        instance: 32 hexadecimal digits, by which a server tells two processes with one identity; empty: this process's
            own. Processes that are a device in turn have one in common.
    """

    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    send_timeout: float = 60.0
    slowest: float = 2048.0
    send_piece: int = 1 << 14
    send_buffer: int = 1 << 16
    buffered: int = 1 << 20
    stop_timeout: float = 2.0
    longest_control_answer: int = 1 << 16
    longest_task: int = 1 << 20
    longest_download: int = 1 << 31
    spare_disk: int = 1 << 25
    poll_wait: float = 25.0
    first_retry: float = 0.25
    longest_retry: float = 60.0
    remind: float = 3600.0
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
    runs_asked: int = MOST_ASKED
    progress_pause: float = 10.0
    status_pause: float = 10.0
    status_burst: int = 6
    history_kept: int = 20
    instance: str = ""
