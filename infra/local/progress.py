"""Shows the progress of an installation: parses pip's output and updates one line on the terminal.

Standard library only, in syntax that Python 3.8 can parse, like install.py.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path


def activity(line: str) -> tuple[str, str]:
    """The phase and the package of a line of pip's output; two empty strings for other lines."""
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
    """One line that is updated on a terminal; elsewhere one line per step and at most one every ten seconds."""

    def __init__(self, steps: int) -> None:
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.steps, self.step, self.name, self.shown = steps, 0, "", 0.0
        self.started = self.step_started = time.monotonic()

    def start(self, name: str) -> None:
        """Begin the next step."""
        self.step, self.name, self.shown, self.step_started = self.step + 1, name, 0.0, time.monotonic()
        self.show("")

    def show(self, activity_text: str) -> None:
        """Show the step's activity, at a limited rate."""
        now = time.monotonic()
        if now - self.shown < (0.1 if self.live else 10):
            return
        self.shown = now
        line = f"[{self.step}/{self.steps}] {self.name} {activity_text}".rstrip() + f"  {now - self.started:.0f} s"
        if self.live:
            line = "\r\x1b[2K" + line[: shutil.get_terminal_size().columns - 1]
        print(line, end="" if self.live else "\n", flush=True)

    def end(self, line: str) -> None:
        """Replace the updated line by a final one."""
        print(("\r\x1b[2K" if self.live else "") + line, flush=True)


class Pip:
    """The state of pip from its output: the phase, the package, and how many packages are collected or installed."""

    def __init__(self, venv: Path, total: int) -> None:
        self.venv, self.total, self.collected, self.before = venv, total, 0, 0
        self.phase, self.package = "", ""

    def installed(self) -> int:
        """The number of installed packages."""
        return sum(1 for _ in self.venv.glob("lib/python3*/site-packages/*.dist-info"))

    def feed(self, *lines: bytes) -> None:
        """Process lines of pip's output."""
        for line in lines:
            phase, package = activity(line.decode("utf-8", "replace"))
            if phase == "installing":
                # From here on pip changes the environment: an interruption would leave it incomplete.
                (self.venv / ".whole").unlink(missing_ok=True)
                self.total, self.before = line.count(b",") + 1, self.installed()
            if phase:
                self.phase, self.package = phase, package
                self.collected += phase in ("found", "downloading")

    def __str__(self) -> str:
        count = self.installed() - self.before if self.phase == "installing" else self.collected
        activity_text = f"{self.phase.replace('found', 'collecting')} {self.package}".rstrip()
        return f"{activity_text} {min(count, self.total)}/{self.total}" if activity_text else ""
