"""Detects that the terminal was closed, and sends SIGHUP to this process.

Does not stop anything: the handler of SIGHUP does.
"""

import os
import select
import signal
import stat
import threading
from contextlib import suppress


def follows_its_terminal() -> bool:
    """Whether this process should end with its terminal; False under nohup."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def end_with_terminal() -> None:
    """Send SIGHUP to this process when its terminal is closed.

    The kernel signals only the session's leader, which may be a `make` that waits for this process.
    """
    terminals = [number for number in (0, 1, 2) if os.isatty(number)]
    if terminals:
        threading.Thread(target=_watch, args=(terminals[0],), name="terminal", daemon=True).start()


def _watch(terminal: int) -> None:
    poll = select.poll()
    # Hang-ups are reported without being requested.
    poll.register(terminal, 0)
    poll.poll()
    os.kill(os.getpid(), signal.SIGHUP)


def silence_terminal() -> None:
    """Redirect terminal output to /dev/null: a failing write to a closed terminal would interrupt the shutdown."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        with suppress(OSError):
            if not stat.S_ISREG(os.fstat(number).st_mode):
                os.dup2(null, number)
    os.close(null)
