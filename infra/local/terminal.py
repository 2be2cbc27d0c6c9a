"""The terminal that may be closed at any moment: noticed, and no reason to leave anything running.

Owns what is done about it; refuses to know what there is to be stopped: that is the handler's of SIGHUP.
"""

import os
import select
import signal
import stat
import threading
from contextlib import suppress


def minds_its_terminal() -> bool:
    """Whether this process is to end with its terminal: under nohup it is not."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def end_with_terminal() -> None:
    """Have this process get SIGHUP when its terminal is closed.

    The kernel tells only the session's leader, and that may be a `make` which waits for this very process.
    """
    terminals = [number for number in (0, 1, 2) if os.isatty(number)]
    if terminals:
        threading.Thread(target=_watch, args=(terminals[0],), name="terminal", daemon=True).start()


def _watch(terminal: int) -> None:
    poll = select.poll()
    # No event is asked for; that it was closed is told all the same.
    poll.register(terminal, 0)
    poll.poll()
    os.kill(os.getpid(), signal.SIGHUP)


def hush() -> None:
    """From now on write only into files: a write to a closed terminal fails, and would stop the stopping."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        with suppress(OSError):
            if not stat.S_ISREG(os.fstat(number).st_mode):
                os.dup2(nowhere, number)
    os.close(nowhere)
