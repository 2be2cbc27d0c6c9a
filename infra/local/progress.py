"""What an installation shows meanwhile: pip's output, read as it comes, as one changing line.

Stdlib only, and in syntax that Python 3.8 can read, as install.py is.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path


def activity(line: str) -> tuple[str, str]:
    """What pip is at, by a line of its output, and with which package; two empty words if it does not say."""
    match = re.match(r"\s*(Collecting|Downloading|Using cached|Processing|Installing) (\S+)(.*)", line)
    if line.startswith("Requirement already satisfied"):
        return "found", re.split(r"[^\w.-]", line.split()[3])[0]
    if not match or match.group(2).endswith(".metadata"):
        return "", ""
    verb, what, rest = match.groups()
    if verb == "Collecting":
        return "collecting", re.split(r"[^\w.-]", what)[0]
    if verb == "Installing":
        return ("installing", "") if what == "collected" else ("", "")
    size = re.search(r"\([\d.]+ [kMG]B\)", rest)
    name = what.rsplit("/", 1)[-1].split("-", 1)[0].replace("_", "-")
    return "downloading" if verb == "Downloading" else "found", f"{name} {size.group()}" if size else name


class Progress:
    """One line that changes, on a terminal; elsewhere a line per step, and one every ten seconds at most."""

    def __init__(self, steps: int) -> None:
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.steps, self.step, self.name, self.shown = steps, 0, "", 0.0
        self.began = self.step_began = time.monotonic()

    def start(self, name: str) -> None:
        """The next step begins."""
        self.step, self.name, self.shown, self.step_began = self.step + 1, name, 0.0, time.monotonic()
        self.tell("")

    def tell(self, doing: str) -> None:
        """Shows what the step is at, not more often than the reader can use."""
        now = time.monotonic()
        if now - self.shown < (0.1 if self.live else 10):
            return
        self.shown = now
        line = f"[{self.step}/{self.steps}] {self.name} {doing}".rstrip() + f"  {now - self.began:.0f} s"
        if self.live:
            line = "\r\x1b[2K" + line[: shutil.get_terminal_size().columns - 1]
        print(line, end="" if self.live else "\n", flush=True)

    def end(self, line: str) -> None:
        """Leaves one last line instead of the changing one."""
        print(("\r\x1b[2K" if self.live else "") + line, flush=True)


class Pip:
    """What pip has said so far: the phase, the package and how many of them are at hand or in place."""

    def __init__(self, venv: Path, total: int) -> None:
        self.venv, self.total, self.at_hand, self.before = venv, total, 0, 0
        self.phase, self.package = "", ""

    def in_place(self) -> int:
        """How many packages the environment holds."""
        return sum(1 for _ in self.venv.glob("lib/python3*/site-packages/*.dist-info"))

    def hear(self, *lines: bytes) -> None:
        """Takes lines of pip's output."""
        for line in lines:
            phase, package = activity(line.decode("utf-8", "replace"))
            if phase == "installing":
                # From here on pip writes: cut off now, the environment would be half of something.
                (self.venv / ".whole").unlink(missing_ok=True)
                self.total, self.before = line.count(b",") + 1, self.in_place()
            if phase:
                self.phase, self.package = phase, package
                self.at_hand += phase in ("found", "downloading")

    def __str__(self) -> str:
        count = self.in_place() - self.before if self.phase == "installing" else self.at_hand
        doing = f"{self.phase.replace('found', 'collecting')} {self.package}".rstrip()
        return f"{doing} {min(count, self.total)}/{self.total}" if doing else ""
