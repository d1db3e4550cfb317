"""What is asked of the server: hand out tasks while many wait, take many uploads at once, fold while it serves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgefl.atomic import sync_folder
from edgefl.layout import Parameter
from edgefl.wire.messages import Outcome, Section, Task
from loads.clients import Device
from loads.serving import Prober, Server, Watching
from model_files import make_model_file

__all__ = ["Figure", "folding", "handing_out", "uploading"]

_T = TypeVar("_T")

_AT_ONCE = 64
"""Devices that enrol at a time."""
_PROBED = "probed"


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        part: of the benchmark.
        what: is measured.
        value: the figure.
        unit: of it.
        bound: that it must hold; None: it is only told.
        at_least: the bound is the least, not the most.
    """

    part: str
    what: str
    value: float
    unit: str
    bound: float | None = None
    at_least: bool = False

    @property
    def ratio(self) -> float | None:
        """The share of the bound that is used up: at most 1 where it holds."""
        if self.bound is None:
            return None
        return self.bound / max(self.value, 1e-9) if self.at_least else self.value / self.bound


async def handing_out(server: Server, waiting: int, target: int) -> list[Figure]:
    """Enrols many, lets all of them wait, creates a run that wants some, and waits until these have their tasks."""
    part = f"{waiting:,} wait, {target:,} are asked"
    devices, figures = await _enrolled(server, "waiting", waiting, part)
    got: list[float] = []
    enough = asyncio.Event()

    async def live(device: Device) -> None:
        while True:
            answer = await device.poll(30)
            if answer.status == 200:
                Task.decode(answer.body)
                got.append(answer.at)
                if len(got) == target:
                    enough.set()
                return
            assert answer.status == 204, answer
            await asyncio.sleep(float(answer.header("Retry-After")))

    lives = [asyncio.create_task(live(device)) for device in devices]
    await asyncio.sleep(min(5.0, waiting / 500))
    async with _probing(server) as probed:
        await asyncio.sleep(2)
        with Watching(server.process.pid) as watching:
            began = time.monotonic()
            run = await server.create_run(make_model_file(), "waiting", target)
            await _unless(enough.wait(), lives, 600)
            ended = time.monotonic()
        await asyncio.sleep(1)
        assert len(got) == target
        await asyncio.to_thread(server.call, "POST", f"/v1/runs/{run}/stop")
    for each in lives:
        each.cancel()
    for device in devices:
        device.close()
    return [
        *figures,
        Figure(part, "until the last has its task", ended - began, "s", 20.0),
        Figure(part, "half of them have theirs after", sorted(got)[target // 2] - began, "s"),
        Figure(part, "the server's processor time for each", watching.seconds / target * 1e3, "ms"),
        *_answers(part, probed, began, ended),
        Figure(part, "resident, at most", watching.peak_mb, "MB"),
    ]


async def uploading(server: Server, folder: Path, count: int, elements: int, turns: int) -> list[Figure]:
    """Takes many uploads that come at once, in turns with writing the same files durably one after the other."""
    part = f"{count:,} uploads of {4 * elements / 1e6:.1f} MB at once"
    devices, _ = await _enrolled(server, "uploading", count, part)
    alone, together, ratios = list[float](), list[float](), list[float]()
    late, used, peak, accepted = 0.0, 0.0, 0.0, 0
    figures: list[Figure] = []
    for turn in range(turns):
        run = await server.create_run(_model(elements), "uploading", count + 1)
        tasks = [await _task(device) for device in devices]
        messages = _messages(tasks, elements)
        megabytes = sum(len(each) for message in messages for each in message) / 1e6
        if turn == 0:
            alone.append(megabytes / await asyncio.to_thread(_durably, folder, messages))
        async with _probing(server) as probed:
            with Watching(server.process.pid) as watching:
                began = time.monotonic()
                sent = zip(devices, tasks, messages, strict=True)
                answers = await asyncio.gather(*(device.upload(task.task_id, each) for device, task, each in sent))
                ended = time.monotonic()
        accepted += sum(answer.status == 202 for answer in answers)
        together.append(megabytes / (ended - began))
        alone.append(megabytes / await asyncio.to_thread(_durably, folder, messages))
        ratios.append(together[-1] / ((alone[-1] + alone[-2]) / 2))
        late, peak = max(late, ended - began), max(peak, watching.peak_mb)
        used += watching.seconds / turns
        figures = _answers(part, probed, began, ended, bound=None)
        assert len(list((server.state / "outcomes").iterdir())) >= accepted
        await asyncio.to_thread(server.call, "POST", f"/v1/runs/{run}/stop")
    for device in devices:
        device.close()
    spread = ", ".join(f"{each:.2f}" for each in ratios)
    return [
        Figure(part, "answered with 202", float(accepted), "", float(count * turns), at_least=True),
        Figure(part, "the same files written durably, median", float(np.median(alone)), "MB/s"),
        Figure(part, "accepted, median", float(np.median(together)), "MB/s"),
        Figure(part, f"accepted / written durably, median of {spread}", float(np.median(ratios)), "x", 0.5, True),
        Figure(part, "the last is answered after, at most", late, "s"),
        Figure(part, "the server's processor time for each", used / count * 1e3, "ms"),
        *figures,
        Figure(part, "resident, at most", peak, "MB", 300.0),
    ]


async def folding(server: Server, count: int, elements: int) -> list[Figure]:
    """Folds what many have sent, while others ask."""
    part = f"a fold of {count:,} x {4 * elements / 1e6:.1f} MB"
    devices, _ = await _enrolled(server, "folding", count, part)
    run = await server.create_run(_model(elements), "folding", count)
    gate = asyncio.Semaphore(_AT_ONCE)
    tasks = await _gated(devices, _task)
    messages = dict(zip((device.device for device in devices), _messages(tasks, elements), strict=True))
    task_of = dict(zip((device.device for device in devices), tasks, strict=True))
    accepted: list[float] = []

    async def send(device: Device) -> None:
        async with gate:
            answer = await device.upload(task_of[device.device].task_id, messages[device.device])
            assert answer.status == 202, answer
            accepted.append(answer.at)

    async with _probing(server) as probed:
        began = time.monotonic()
        with Watching(server.process.pid) as watching:
            await asyncio.gather(*map(send, devices))
            closed = time.monotonic()
            while (await asyncio.to_thread(server.call, "GET", f"/v1/runs/{run}"))["state"] == "active":
                await asyncio.sleep(0.05)
            folded = time.monotonic()
        await asyncio.sleep(0.5)
    status = await asyncio.to_thread(server.call, "GET", f"/v1/runs/{run}")
    assert status["history"][0]["outcomes"]["folded"] == count, status["history"]
    for device in devices:
        device.close()
    return [
        Figure(part, "accepted before, a second", count / (closed - began), ""),
        Figure(part, "folded after", folded - closed, "s"),
        *_answers(part, probed, closed, folded),
        Figure(part, "resident, at most", watching.peak_mb, "MB"),
    ]


async def _enrolled(server: Server, population: str, count: int, part: str) -> tuple[list[Device], list[Figure]]:
    token = server.invite(population)
    devices = [Device(server.port, number, population) for number in range(count)]
    began, late = time.monotonic(), list[float]()

    async def enrol(device: Device) -> None:
        asked = time.monotonic()
        answer = await device.enrol(token)
        assert answer.status in (200, 201), answer
        late.append(answer.at - asked)

    await _gated(devices, enrol)
    seconds = time.monotonic() - began
    return devices, [Figure(part, f"enrolled, {_AT_ONCE} at a time, a second", count / seconds, "")]


async def _task(device: Device) -> Task:
    answer = await device.poll(30)
    assert answer.status == 200, answer
    return Task.decode(answer.body)


async def _gated(devices: Iterable[Device], do: Callable[[Device], Awaitable[_T]]) -> list[_T]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(device: Device) -> _T:
        async with gate:
            return await do(device)

    return await asyncio.gather(*map(one, devices))


async def _unless(done: Any, lives: list[asyncio.Task[None]], seconds: float) -> None:
    """Waits until something is done; raises what ended one of the lives meanwhile."""
    waiting = asyncio.ensure_future(done)
    end = time.monotonic() + seconds
    while not waiting.done():
        await asyncio.wait([waiting], timeout=1)
        for each in lives:
            if each.done() and each.exception() is not None:
                raise each.exception()  # type: ignore[misc]
        if time.monotonic() > end:
            raise SystemExit(f"Not done after {seconds:g} s.")


@asynccontextmanager
async def _probing(server: Server) -> AsyncIterator[list[tuple[str, float, float]]]:
    token = server.invite(_PROBED)
    prober = await asyncio.to_thread(Prober, server, _PROBED, token)
    found: list[tuple[str, float, float]] = []
    yield found
    found += await asyncio.to_thread(prober.end)


def _answers(
    part: str, probed: list[tuple[str, float, float]], began: float, ended: float, bound: float | None = 500.0
) -> list[Figure]:
    """How long others waited for their answers meanwhile; one that was asked before and answered then counts too."""
    during = [(kind, seconds) for kind, at, seconds in probed if at + seconds >= began and at <= ended]
    figures = []
    for label, kinds in (("polls", ("poll",)), ("all calls", ("poll", "weights", "lease", "operator"))):
        times = sorted(1e3 * seconds for kind, seconds in during if kind in kinds)
        if times:
            p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
            figures.append(
                Figure(part, f"other {label} meanwhile ({len(times)}), median", float(np.median(times)), "ms")
            )
            figures.append(Figure(part, f"other {label} meanwhile ({len(times)}), p99", p99, "ms", bound))
    return figures


def _model(elements: int) -> bytes:
    return make_model_file([Parameter("dense/kernel", "m/dense/kernel", (elements,))])


def _messages(tasks: list[Task], elements: int) -> list[list[bytes | memoryview]]:
    """An outcome for each task: the same update, in parts around the task's id."""
    first = tasks[0]
    delta = np.random.default_rng(1).normal(scale=0.01, size=elements).astype(np.float32)
    section = Section.of("delta", delta, first.codec_of("delta"))
    message = Outcome(
        first.task_id, first.base_weights_hash, first.layout_hash, num_examples=8, sections=(section,)
    ).encode()
    at = message.index(first.task_id.encode())
    before, after = message[:at], memoryview(message)[at + len(first.task_id) :]
    return [[before + task.task_id.encode(), after] for task in tasks]


def _durably(folder: Path, messages: list[list[bytes | memoryview]]) -> float:
    """Seconds of writing them as a careful program does: write, fsync, rename, fsync of the folder."""
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    for number, message in enumerate(messages):
        part = folder / f"{number}.part"
        with part.open("wb", buffering=0) as file:
            for piece in message:
                file.write(piece)
            os.fsync(file.fileno())
        part.replace(folder / str(number))
        sync_folder(folder)
    seconds = time.monotonic() - began
    for number in range(len(messages)):
        (folder / str(number)).unlink()
    return seconds
