"""A real browser, Debian's chromium without a screen, that opens a page as a reader would, and says what it saw.

The page comes from a server of this process on 127.0.0.1, which is also the browser's proxy: whatever the page, or the
browser for it, asks of anybody is noted here, and nobody else is ever asked.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "Seen", "look"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FRAME = """<!DOCTYPE html><html style="color-scheme:{scheme}"><body style="margin:0"><iframe id="page" src="/page.html"
style="border:0;width:{width}px;height:{height}px"></iframe><pre id="result"></pre><script>
const frame = document.getElementById("page");
const find = () => {{
  const page = frame.contentDocument;
  const texts = [...page.querySelectorAll("svg text")].map(each => each.getBoundingClientRect());
  const parts = [...page.querySelectorAll("h1, h2, p, table, figure, svg")].filter(each => !each.closest(".wide"));
  return {{
    width: page.documentElement.clientWidth,
    needed: page.documentElement.scrollWidth,
    height: page.documentElement.scrollHeight,
    furthest: Math.max(...parts.map(each => each.getBoundingClientRect().right)),
    text: page.body.innerText,
    pictures: page.querySelectorAll("svg[role=img][aria-label]").length,
    smallest: Math.min(...texts.map(each => Math.max(each.width, each.height))),  // some stand upright
    ground: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.body).color,
    lines: [...page.querySelectorAll("svg g[id*=line2d] path[stroke]")].map(each => getComputedStyle(each).stroke),
    scripts: page.scripts.length,
  }};
}};
frame.addEventListener("load", () => setTimeout(() => {{
  frame.contentDocument.querySelectorAll("details").forEach(each => each.open = true);
  document.getElementById("result").textContent = JSON.stringify(find());
}}, 200));
</script></body></html>"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; report-uri /violation"
"""What the page's own policy forbids is forbidden in any case; this one tells of what it would ask of anybody."""


_BROWSERS_OWN = re.compile(r"^(https?://)?[\w.-]*\.google(apis)?\.com(:\d+)?(/|$)")
"""Whom chromium asks for itself, whatever it opens: a page that did would be told of by the policy as well."""


@dataclass(frozen=True)
class Seen:
    """What a browser found.

    Attributes:
        page: measured in the page, see `_FRAME`.
        asked: what was asked of anybody, beside the page itself.
        said: lines of the browser's console: errors of the page, and what its policy forbade.
    """

    page: dict[str, Any]
    asked: list[str]
    said: list[str]


def look(page: Path, width: int, *, dark: bool = False, screenshot: Path | None = None, height: int = 844) -> Seen:
    """Opens a page.

    Args:
        page: the file.
        width: of the window, in CSS pixels.
        dark: whether the reader prefers that.
        screenshot: where to put a picture of it, `height` pixels of it.
        height: of the window.
    """
    assert CHROMIUM is not None
    asked: list[str] = []
    frame = _FRAME.format(
        width=width, height=height, scheme="dark" if dark else "light"
    )  # a frame prefers what it is in
    files = {"/": frame.encode(), "/favicon.ico": b"", "/page.html": page.read_bytes()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = re.sub(r"^http://127\.0\.0\.1:\d+", "", self.path)
            if path not in files and not _BROWSERS_OWN.search(path):
                asked.append(f"{self.command} {path}")
            self.send_response(200 if path in files else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            if path == "/page.html":
                self.send_header("Content-Security-Policy", _POLICY)
            self.end_headers()
            self.wfile.write(files.get(path, b""))

        def log_message(self, *arguments: object) -> None:
            pass

    for method in ("POST", "HEAD", "OPTIONS", "CONNECT"):
        setattr(Handler, f"do_{method}", Handler.do_GET)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    port = server.server_address[1]
    try:
        with tempfile.TemporaryDirectory(prefix="edgefl-browser-") as folder:
            command = [
                *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"),
                *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--disable-extensions", "--disable-default-apps", "--disable-dev-shm-usage", "--hide-scrollbars"),
                *(f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>"),
                *("--enable-logging=stderr", "--virtual-time-budget=5000", f"--window-size={max(width, 500)},{height}"),
                *(["--force-dark-mode"] if dark else []),
                *([f"--screenshot={screenshot}"] if screenshot else ["--dump-dom"]),
                f"http://127.0.0.1:{port}/",
            ]
            environment = {**os.environ, "HOME": folder, "XDG_CACHE_HOME": folder, "XDG_CONFIG_HOME": folder}
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    if screenshot:
        return Seen({}, asked, said)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return Seen(json.loads(html.unescape(found[1])), asked, said)
