"""Repeats an action on a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(action: Callable[[], None], every_seconds: float, name: str) -> Iterator[None]:
    """Call the action at this interval while the block runs; the first time after one interval."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(every_seconds):
            action()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
