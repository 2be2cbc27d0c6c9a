"""A worker's start: where its time goes, and what makes it short. Knows no engine.

Nothing that is imported or loaded at the start is ever freed, but Python's collector looks for garbage in it again and
again: a second of vLLM's import, and more than half of its load. So it rests until the worker is
ready (`deferred_gc`).
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
"""Called with a stage's name when the stage is over."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


class StartTimer:
    """The stages of a start, one after the other, from the process's own beginning."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.age = process_age()
        self._began = self._last - self.age
        self._seconds: dict[str, float] = {"process": self.age}

    def mark(self, stage: str) -> None:
        """The stage is over."""
        now = time.monotonic()
        self._seconds[stage] = now - self._last
        self._last = now

    def __str__(self) -> str:
        """`5.9 s (process 0.3, import 4.4, load 1.1, warm-up 0.1)`, in seconds."""
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self._seconds.items())
        return f"{self._last - self._began:.2f} s ({stages})"


def process_age() -> float:
    """Seconds since this process began, or was forked; to the kernel's tick of 10 ms."""
    # After the name, which may hold anything, in its parentheses; counted from 1, the start is field 22 of all.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def deferred_gc() -> Iterator[None]:
    """Within the block nothing is collected, and what was made before it never is."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def prefetch_weights(spec: ModelSpec) -> threading.Thread:
    """Have the kernel read the model's weights while this process does something else. Answers who asks it to."""
    thread = threading.Thread(target=_read_ahead, args=(spec,), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _read_ahead(spec: ModelSpec) -> None:
    for path in weight_files(spec):
        try:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        except OSError as error:
            # It is read all the same, later.
            logger.debug("%s cannot be read ahead: %s", path, error)


def weight_files(spec: ModelSpec) -> list[Path]:
    """The weights as they lie on this machine: in the model's folder, or in the hub's cache. None when they do not."""
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
    """Where the hub's library keeps a model; it would take too long to be asked itself."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or Path(home, "hub")
    model = Path(cache).expanduser() / f"models--{name.replace('/', '--')}"
    branch = model / "refs" / revision
    return model / "snapshots" / (branch.read_text().strip() if branch.is_file() else revision)
