"""LoRA of a small language model: a step in edgefl beside Keras and PyTorch, its memory, and what converting costs.

Llama-like decoders (rotary positions, grouped queries, SwiGLU, RMS normalisation) with random weights; adapters of
rank 8 on all seven projections of a block, plain SGD. All contenders have the same weights and adapters, and their
losses are compared before they are timed, side by side (interleaving.py). Memory is the peak of a contender's process,
and what is no page of a file; a round sends and fetches the adapters. Conversion is with the whole verification. Exits
with 2 where a bar is missed.

    python benchmarks/language_models.py --sizes 1M,10M
    python benchmarks/language_models.py --json bench/language_models.json      (125M: 5.4 GB of memory, minutes)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from interleaving import ContenderError, measure, start
from language.sizes import RANK, SIZES
from local_steps.contending import HERE, PEERS_PYTHON
from local_steps.losses import differing

OWN, KERAS, TORCH = "edgefl", "Keras", "PyTorch"
MISSED = 2
"""The exit code where a bar is missed."""
BARS = {"125M": {"peak_mb": 750, "anonymous_mb": 250, "of_torch": 0.6}, "10M": {"peak_mb": 150}}
"""What edgefl is held to on its fastest runtime and one thread: memory in MB, and its step as a share of PyTorch's."""


def runtimes() -> list[str]:
    from edgefl_device_runtime.training import installed_runtimes

    return list(installed_runtimes())


def commands(name: str, folder: Path, threads: int) -> dict[str, list[str]]:
    """Each contender's process."""
    own = {f"{OWN} {runtime}": [sys.executable, __file__, "--serve", runtime] for runtime in runtimes()}
    peers = {KERAS: [sys.executable, __file__, "--serve", KERAS]}
    if PEERS_PYTHON.exists():
        peers[TORCH] = [str(PEERS_PYTHON), __file__, "--serve", TORCH]
    given = ["--sizes", name, "--folder", str(folder), "--threads", str(threads)]
    return {contender: [*command, *given] for contender, command in {**own, **peers}.items()}


def serve(contender: str, name: str, folder: Path, threads: int) -> None:
    """Is one contender, until standard input ends."""
    import serving

    if contender == TORCH:
        from language import torch_decoder

        serving.serve(lambda: torch_decoder.make_step(name, folder, threads))
    elif contender == KERAS:
        from language import keras_decoder

        serving.serve(lambda: keras_decoder.make_step(name, folder, threads))
    else:
        from language import edgefl_decoder

        serving.serve(lambda: edgefl_decoder.make_step(name, folder, threads, contender))


def converted(name: str, folder: Path) -> dict[str, Any]:
    """Converts in a process of its own."""
    program = [sys.executable, "-m", "language.keras_decoder", name, str(folder)]
    done = subprocess.run(program, cwd=HERE, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise SystemExit(f"{' '.join(program)} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def stepped(name: str, folder: Path, threads: int, slices: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each contender that does what the others do."""
    running, why_not, losses = commands(name, folder, threads), {}, {}
    for contender, command in running.items():
        try:
            losses[contender] = start(command, threads=threads, cwd=HERE).losses
        except ContenderError as error:
            why_not[contender] = f"FAILED: {error}"
    why_not |= {each: f"FAILED: {wrong}" for each, wrong in differing(losses).items()}
    sound = {each: command for each, command in running.items() if each not in why_not}
    timings = measure(sound, threads=threads, slices=slices, seconds=seconds, cwd=HERE)
    peer = timings[TORCH].step_ms if TORCH in timings else None
    rows = []
    for contender in running:
        row: dict[str, Any] = {"size": name, "threads": threads, "contender": contender}
        row["why_not"] = why_not.get(contender)
        if timing := timings.get(contender):
            row |= {"step_ms": timing.step_ms, "peak_mb": timing.peak_rss_mb, "anonymous_mb": timing.anonymous_mb}
            row["of_torch"] = timing.step_ms / peer if peer else None
        rows.append(row)
    return rows


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The rows of a size and number of threads as text."""
    found = []
    for row in rows:
        if row["why_not"]:
            found.append(f"    {row['contender']:28} {row['why_not']}")
            continue
        share = f", {row['of_torch']:5.2f} x {TORCH}" if row["of_torch"] else ""
        found.append(
            f"    {row['contender']:28} {row['step_ms']:8.1f} ms{share}, peak {row['peak_mb']:5.0f} MB, "
            f"of it anonymous {row['anonymous_mb']:5.0f} MB"
        )
    return found


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """Bars that edgefl's fastest runtime misses on one thread."""
    found = []
    for name, bars in BARS.items():
        own = [each for each in rows if each["size"] == name and each["threads"] == 1 and OWN in each["contender"]]
        own = [each for each in own if not each["why_not"]]
        if own:
            fastest = min(own, key=lambda row: float(row["step_ms"]))
            for key, bar in bars.items():
                if fastest[key] is not None and fastest[key] > bar:
                    found.append(f"{name}: {key} {fastest[key]:.2f}, at most {bar}")
    return found


def main() -> None:
    """Runs the sizes one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(SIZES), help="which, with commas between (default: %(default)s)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default: %(default)s)")
    parser.add_argument("--slices", type=int, default=5, help="turns that each contender gets")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one unless given, and kept if given")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.sizes, arguments.folder, int(arguments.threads))
        return
    if unknown := sorted(set(arguments.sizes.split(",")) - set(SIZES)):
        parser.error(f"there is no size {', '.join(unknown)}; there are {', '.join(SIZES)}")
    if not PEERS_PYTHON.exists():
        print("PyTorch is left out: there is no .venv-peers. `make bench-peers` makes it.")
    rows: list[dict[str, Any]] = []
    conversions: dict[str, Any] = {}
    for name in arguments.sizes.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.folder or Path(temporary)).resolve() / name
            kept = folder / "conversion.json"
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(converted(name, folder)))
            cost = conversions[name] = json.loads(kept.read_text())
            print(
                f"\n{name}: {cost['parameters']:,} weights, adapters of rank {RANK}: a round sends "
                f"{4 * cost['travels']:,} bytes and fetches as many. File {cost['file_mb']:.1f} MB; converted and "
                f"verified in {cost['seconds']:.0f} s and {cost['peak_mb'] / 1024:.2f} GB.",
                flush=True,
            )
            for threads in map(int, arguments.threads.split(",")):
                own = stepped(name, folder, threads, arguments.slices, arguments.seconds)
                rows += own
                print(f"  {threads} thread{'s' * (threads > 1)}", *lines(own), sep="\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"conversions": conversions, "rows": rows}, indent=2) + "\n")
    if wrong := missed(rows):
        print("\nMissed:", *wrong, sep="\n    ")
        sys.exit(MISSED)


if __name__ == "__main__":
    main()
