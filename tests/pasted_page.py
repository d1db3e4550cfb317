"""Types a page of the documentation as a reader would, block after block: `python pasted_page.py PAGE`.

Python goes into one session, and what is for a shell into one shell, so that each block finds what those before it have
left: names, variables, files, a server in the background. A block of TOML that says a name becomes a file of that name.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["Block", "blocks"]

_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PAUSE_SECONDS = 0.05


class Block(str):
    """The text of a block.

    Attributes:
        language: what stands behind the fence, such as ``python``, ``sh elsewhere`` or ``toml fleet.toml``.
        line: of the page, from 1.
    """

    language: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in their order."""
    text, found = page.read_text(), []
    for match in _FENCED.finditer(text):
        block = Block(match[2])
        block.language, block.line = match[1], text.count("\n", 0, match.start()) + 1
        found.append(block)
    return found


class Shell:
    """A shell that ends at the first command that fails."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["sh", "-e"], stdin=subprocess.PIPE, text=True)
        self._typed = 0

    def type(self, text: str) -> None:
        """Types lines, and waits until the last of them is done."""
        self._typed += 1
        # A file and no pipe: a server that runs on in the background would keep that open.
        mark = Path(f".done-{self._typed}")
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n: > {mark}\n")
        self._process.stdin.flush()
        while not mark.exists():
            if self._process.poll() is not None:
                raise SystemExit(f"The shell ended with {self._process.returncode} in:\n{text}")
            time.sleep(_PAUSE_SECONDS)
        mark.unlink()


def main(page: Path) -> None:
    """Types the page in the current folder."""
    names, shell = {"__name__": "__main__"}, Shell()
    for block in blocks(page):
        kind, _, file = block.language.partition(" ")
        if block.language == "python":
            exec(compile("\n" * block.line + block, str(page), "exec"), names)
        elif block.language == "sh":
            shell.type(block)
        elif kind == "toml" and file:
            Path(file).write_text(block)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
