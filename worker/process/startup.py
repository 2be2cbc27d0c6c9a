"""Measures and shortens the start of a worker. Independent of the engine.

Objects that are imported or loaded at the start are never freed, but Python's garbage collector traverses them
repeatedly, which takes a second of vLLM's import and more than half of its load. Therefore collection is deferred until
the worker is ready (`deferred_gc`).
"""

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import ConfigurationError
from shared.models import ModelSpec

logger = logging.getLogger(__name__)

Mark = Callable[[str], None]
"""Called with the name of a stage when it ends."""
STAGES = ("process", "import", "load", "warm-up", "connect")
"""The stages of a start; an engine may have others."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


class StartTimer:
    """Times the stages of a start, beginning with the start of the process."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.age = process_age()
        self._started_at = self._last - self.age
        self._seconds: dict[str, float] = {"process": self.age}

    def mark(self, stage: str) -> None:
        """End the current stage."""
        now = time.monotonic()
        self._seconds[stage] = now - self._last
        self._last = now

    @property
    def stages(self) -> dict[str, float]:
        """The seconds of each stage that has ended."""
        return dict(self._seconds)

    def __str__(self) -> str:
        """`5.9 s (process 0.3, import 4.4, load 1.1, warm-up 0.1)`, in seconds."""
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self._seconds.items())
        return f"{self._last - self._started_at:.2f} s ({stages})"


def process_age() -> float:
    """Seconds since this process started or was forked, with a resolution of 10 ms."""
    # Skip the process name in parentheses, which may contain anything. The start time is field 22, counted from 1.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def deferred_gc() -> Iterator[None]:
    """Disable garbage collection within the block, and exempt objects created before and in it from collection."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def prefetch_weights(spec: ModelSpec) -> threading.Thread:
    """Ask the kernel, on a background thread, to read the model's weight files. Returns the thread."""
    thread = threading.Thread(target=_read_ahead, args=(spec,), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _read_ahead(spec: ModelSpec) -> None:
    for path in weight_files(spec):
        try:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        except OSError as error:
            # Continue: the engine reads the file later.
            logger.debug("weights cannot be read ahead", extra={"error": error})


def weight_files(spec: ModelSpec) -> list[Path]:
    """The weight files on this machine, in the model's folder or the hub's cache; empty when there are none."""
    try:
        location = spec.location()
    except ConfigurationError:
        return []
    folder = Path(location)
    if not folder.is_dir():
        folder = _hub_snapshot(location, spec.revision or "main")
    for pattern in _WEIGHTS:
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def _hub_snapshot(name: str, revision: str) -> Path:
    """The hub cache's folder of a model. Importing the hub's library to ask for it would take too long."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or Path(home, "hub")
    model = Path(cache).expanduser() / f"models--{name.replace('/', '--')}"
    branch = model / "refs" / revision
    return model / "snapshots" / (branch.read_text().strip() if branch.is_file() else revision)
