"""A real fleet's load on one server process: SQLite, a folder, and this machine's cores shared with all devices.

    python benchmarks/load.py                                     # everything, about five minutes
    python benchmarks/load.py --parts handing-out --waiting 2000 --target 500
    python benchmarks/load.py --parts uploads,fold

`edgefl server start` is started as a process. Devices are connections of another process (asyncio) that speak the
protocol: they enrol, wait in long polls of 30 s, and send outcomes of the right hashes. A third process asks a little
all the time (a poll, a fetch, a lease, the operator's list) and notes how long each answer takes.

What must hold: a run's 2,000 tasks are handed out within 20 s while 10,000 devices wait, and 99 % of the other calls
are answered within 0.5 s meanwhile; 500 uploads of 1.4 MB that come at once are all accepted, at least half as fast as
the same files are written durably one after the other (in turns, the median of three), in at most 300 MB; and 99 % of
the polls are answered within 0.5 s while 2,000 updates of 0.8 MB are folded. Exits with 1 where a bound is not held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

_ROOT = Path(__file__).parents[1]
sys.path += [str(_ROOT / "tests"), str(_ROOT / "benchmarks")]
from loads.clients import raise_own_file_limit  # noqa: E402
from loads.parts import Figure, folding, handing_out, uploading  # noqa: E402
from loads.serving import Server  # noqa: E402

PARTS = ("handing-out", "uploads", "fold")
_SPARE_FILES = 200


async def measure(part: str, folder: Path, arguments: argparse.Namespace) -> list[Figure]:
    """The figures of one part, with a server of its own."""
    state = folder / part
    most = max(arguments.waiting, arguments.uploads, arguments.updates) + _SPARE_FILES
    server = Server(state, ("--max-connections", str(most)))
    try:
        if part == "handing-out":
            figures = await handing_out(server, arguments.waiting, arguments.target)
        elif part == "uploads":
            figures = await uploading(
                server, folder / "beside", arguments.uploads, arguments.upload_elements, arguments.turns
            )
        else:
            figures = await folding(server, arguments.updates, arguments.update_elements)
    finally:
        server.stop()
    return figures


def table(figures: list[Figure]) -> str:
    """A line for each figure; what must hold, and how much of it is used up, beside it."""
    lines, part = [], ""
    for each in figures:
        if each.part != part:
            part = each.part
            lines.append(f"\n{part:62}{'figure':>12}       {'must':>10}  ratio")
        value = f"{each.value:,.0f}" if each.value >= 100 else f"{each.value:.2f}"
        line = f"  {each.what:60}{value:>12} {each.unit:4}"
        if each.bound is not None and each.ratio is not None:
            sign = ">=" if each.at_least else "<="
            line += f"  {sign} {each.bound:>7,g}  {each.ratio:.2f}{'' if each.ratio <= 1 else '  MISSED'}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Prints the table; exit code 1 where a bound is not held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--waiting", type=int, default=10_000, help="devices that wait")
    parser.add_argument("--target", type=int, default=2000, help="of them are asked")
    parser.add_argument("--uploads", type=int, default=500, help="that come at once")
    parser.add_argument("--upload-elements", type=int, default=350_000, help="float32 of each")
    parser.add_argument("--turns", type=int, default=3, help="of the uploads, and of writing the same files")
    parser.add_argument("--updates", type=int, default=2000, help="that are folded")
    parser.add_argument("--update-elements", type=int, default=200_000, help="float32 of each")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured; unless given, the usual one")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts expects some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    files = raise_own_file_limit()
    if files < arguments.waiting + _SPARE_FILES:
        parser.error(f"--waiting {arguments.waiting} needs as many open files; `ulimit -Hn` is {files}")
    figures = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for part in parts:
            figures += asyncio.run(measure(part, Path(name), arguments))
            print(table([each for each in figures if each.part == figures[-1].part]), flush=True)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
    if arguments.json:
        rows = [{**asdict(each), "ratio": each.ratio} for each in figures]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if any(each.ratio is not None and each.ratio > 1 for each in figures):
        raise SystemExit("A bound is not held.")


if __name__ == "__main__":
    main()
