"""The course of the demo: what `run.py` runs.

Converts the model, starts a server and eight devices as processes of their own, follows the rounds, trains what the
result is compared with, and leaves ``model.tflite``, ``model.keras``, ``summary.json`` and ``accuracy.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefl.errors import EdgeflError
from examples.fleet import DeviceProcess, Fleet, edgefl, keep_open, stop_on_signals
from examples.smartwatch import report
from examples.smartwatch.contenders import Accuracies, Contenders, Judge
from examples.smartwatch.recordings import Person, Split, load_recordings, recordings_file, split

POPULATION = "smartwatches"
ROUNDS = 24
EPOCHS = 4
"""Passes over a device's own data in each round."""
BATCH_SIZE = 16
"""Small, so that a device with 150 windows still takes many steps in a round."""
SEED = 1

_END_SECONDS = 60
"""So long after the last round a device may take to notice that there is nothing left to do."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Federation:
    """What the federated part of the demo has brought.

    Attributes:
        rounds: how good the merged model was after each.
        bytes_up: bytes of all request bodies, by device.
        peak_rss_mb: of each device's process.
    """

    rounds: tuple[Accuracies, ...]
    bytes_up: tuple[int, ...]
    peak_rss_mb: tuple[float, ...]


def run(
    out: Path, *, rounds: int = ROUNDS, epochs: int = EPOCHS, verify: bool = True, say: Say = print
) -> report.Result:
    """Runs the demo.

    Args:
        out: folder for the results; what an earlier run has left there is replaced.
        rounds: of federated averaging.
        epochs: passes over a device's own data in each round.
        verify: whether the converter shall train the model beside Keras before it writes it.
        say: told one line at a time how it goes.

    Raises:
        EdgeflError: a process failed; its log is under ``out/fleet``.
    """
    started = time.monotonic()
    out = out.resolve()
    _clear(out)
    data = split(load_recordings(recordings_file()))
    _introduce(data, say)

    model = out / "model.tflite"
    say("\n1. A Keras model becomes a .tflite file that can train.")
    _convert(model, verify, say)
    judge = Judge(model, data)
    initial = judge.initial()

    say(f"\n2. A server and {len(data.people)} devices train it: {rounds} rounds of {epochs} passes over local data.")
    with Fleet(out / "fleet") as fleet:
        federation = _federate(fleet, model, data, judge, rounds, epochs, say)

    say("\n3. For comparison: each device on its own, and what must not happen: all data in one place.")
    alone, centralised = Contenders(model, data, rounds * epochs, SEED).train(say)

    say("\n4. The merged weights become a Keras model again.")
    edgefl(
        "export", model, "--weights", out / "fleet" / "weights.npy", "-o", out / "model.keras", on_progress=_quoted(say)
    )

    result = report.Result(
        initial=initial,
        alone=judge.judge_each(alone),
        rounds=federation.rounds,
        centralised=judge.judge_all(centralised),
        devices=len(federation.bytes_up),
        bytes_up_per_device=round(sum(federation.bytes_up) / len(federation.bytes_up)),
        device_peak_rss_mb=max(federation.peak_rss_mb),
        seconds=time.monotonic() - started,
    )
    report.draw(result, out / "accuracy.png")
    report.write_summary(result, out / "summary.json")
    return result


def _clear(out: Path) -> None:
    """Removes what an earlier run has left, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "fleet").exists():
        shutil.rmtree(out / "fleet")
    for name in ("model.tflite", "model.tflite.report.json", "model.keras", "summary.json", "accuracy.png"):
        (out / name).unlink(missing_ok=True)


def _introduce(data: Split, say: Say) -> None:
    say("Smartwatch recordings of shoulder exercises: each device holds one shoulder of one person.")
    for person in data.people:
        say(
            f"  person {person.number} trains on {len(person.train[0])} windows of the {person.own_shoulder} shoulder, "
            f"is tested on {len(person.test[0])} of the other"
        )
    say(f"  {len(data.unseen)} people take no part: {sum(len(labels) for _, labels in data.unseen)} windows to test on")


def _convert(model: Path, verify: bool, say: Say) -> None:
    # TensorFlow lives and dies with this child process; neither the server nor a device ever imports it.
    options = ("--batch-size", str(BATCH_SIZE), *(() if verify else ("--no-verify",)))
    edgefl("convert", "examples.smartwatch.model:build", "-o", model, *options, on_progress=_quoted(say))
    say(f"  {model.name}: {model.stat().st_size:,} bytes")


def _federate(fleet: Fleet, model: Path, data: Split, judge: Judge, rounds: int, epochs: int, say: Say) -> Federation:
    url = fleet.start_server()
    say(f"  server at {url}: open it in a browser to watch; the key is admin_token in {fleet.state}/operator.json")
    invitation = fleet.operate("server", "invite", "--population", POPULATION)["invitation"]
    run_id = fleet.operate(
        "run", "create", model, "--population", POPULATION, "--rounds", str(rounds), "--epochs", str(epochs),
        "--target", str(len(data.people)), "--seed", str(SEED), "--name", "smartwatch",
    )["run"]  # fmt: skip
    # The devices start after the run is there: they end by themselves when no run is active.
    for person in data.people:
        device = fleet.add_device(f"person-{person.number}")
        device.start(_write_examples(person, device), invitation)
    accuracies = []
    for entry, weights in fleet.rounds(run_id):
        accuracies.append(judge.judge(weights))
        merged = f"round {entry['round']:2}/{rounds}: {entry['outcomes']['folded']} updates merged"
        say(f"  {merged}, {accuracies[-1].on_other_shoulder:.1%} on the other shoulder")
    summaries = [device.result(_END_SECONDS) for device in fleet.devices]
    fleet.operate("run", "weights", run_id, "-o", fleet.folder / "weights.npy")
    return Federation(
        tuple(accuracies),
        tuple(int(summary["bytes_up"]) for summary in summaries),
        tuple(device.peak_rss_mb for device in fleet.devices),
    )


def _write_examples(person: Person, device: DeviceProcess) -> Path:
    path = device.folder / "data.npz"
    x, y = person.train
    np.savez(path, x=x, y=y)
    return path


def _quoted(say: Say) -> Say:
    return lambda line: say(f"  {line}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Federated learning on real smartwatch recordings.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of federated averaging")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over local data in each round")
    parser.add_argument("--keep", action="store_true", help="start the server again at the end, to look at the run")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)  # also into a pipe, line by line

    try:
        with stop_on_signals():
            result = run(arguments.out, rounds=arguments.rounds, epochs=arguments.epochs, say=say)
    except EdgeflError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("demo: stopped, and all its processes with it", file=sys.stderr)
        sys.exit(130)
    from rich.console import Console

    say("")
    report.print_table(result, Console())
    say(
        f"\nDone in {result.seconds:.0f} s. In {arguments.out}/: summary.json, accuracy.png, model.keras (the federated"
    )
    say("model), model.tflite (what the devices trained), fleet/ (data, states and logs of all processes).")
    if arguments.keep:
        state = arguments.out / "fleet" / "server"
        say(f"\nThe server is open again, until Ctrl-C; the key to sign in is admin_token in {state}/operator.json.")
        with contextlib.suppress(KeyboardInterrupt), stop_on_signals():  # Ctrl-C is how it is meant to end
            keep_open(state)
