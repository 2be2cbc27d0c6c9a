"""Forks the API's processes, replaces those that end, and stops them together.

Runs no event loop and no thread: forking is safe only without them. A process that dies is replaced at once, and its
socket stays open meanwhile: new connections wait for the new process. When processes keep dying, the pauses between
their starts grow, and the socket is closed during a pause, so that the kernel sends no connection there.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess

from api.processes.group import ProcessGroup
from api.processes.sockets import ListeningAddress
from shared.errors import ConfigurationError
from shared.processes import describe_exit, die_with_parent

logger = logging.getLogger("api")

STARTUP_FAILED = 3
"""The exit status of uvicorn when the application did not start. Another attempt would fail, too."""
HEALTHY_SECONDS = 60.0
"""A process that ran this long counts as recovered: its next restart is immediate again."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})


@dataclass(slots=True)
class _Member:
    """One process and its sockets. `restart_at` is set during the pause before a restart."""

    number: int
    sockets: list[socket.socket] = field(default_factory=list)
    process: ForkProcess | None = None
    started_at: float = 0.0
    pause: float = 0.0
    restart_at: float | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.exitcode is None

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        self.sockets = []

    def send(self, number: signal.Signals) -> None:
        # A process that was not waited for keeps its pid, so that no other process receives the signal.
        if self.process is not None and self.process.exitcode is None and self.process.pid is not None:
            os.kill(self.process.pid, number)


class Supervisor:
    """Runs one process for each number of the group. Use it on the main thread of a process without other threads."""

    def __init__(
        self,
        group: ProcessGroup,
        address: ListeningAddress,
        serve: Callable[[Sequence[socket.socket]], None],
        stop_seconds: float,
    ) -> None:
        """`serve` runs in each process, until it receives SIGTERM.

        A process that has not ended `stop_seconds` after SIGTERM is killed.
        """
        self._group = group
        self._address = address
        self._serve = serve
        self._stop_seconds = stop_seconds
        self._pid = os.getpid()
        self._fork = multiprocessing.get_context("fork").Process
        self._members = [_Member(number) for number in range(group.count)]

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, and stop all processes. Returns the exit status: 3 when one did not start.

        Afterwards the signals stay blocked. Raises ConfigurationError when the address cannot be used.
        """
        # Blocked signals are received by sigtimedwait, so that none arrives between a fork and what follows it.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            # All sockets first: each process closes the copies that belong to others.
            for member in self._members:
                member.sockets = self._address.open()
            logger.info("listening", extra={"address": self._address, "processes": len(self._members)})
            for member in self._members:
                self._start(member)
            return self._supervise()
        finally:
            self._stop()

    def _supervise(self) -> int:
        while True:
            received = signal.sigtimedwait(_SIGNALS, self._seconds_to_restart())
            if received is not None and received.si_signo != signal.SIGCHLD:
                return 0
            for member in self._members:
                if member.restart_at is not None:
                    if time.monotonic() >= member.restart_at:
                        self._restart(member)
                elif not member.running:
                    assert member.process is not None
                    assert member.process.exitcode is not None
                    if member.process.exitcode == STARTUP_FAILED:
                        return STARTUP_FAILED
                    self._replace(member, describe_exit(member.process.exitcode))

    def _seconds_to_restart(self) -> float:
        """The time until the next restart; an hour when none is planned."""
        planned = [member.restart_at for member in self._members if member.restart_at is not None]
        return max(0.0, min(planned) - time.monotonic()) if planned else 3600.0

    def _start(self, member: _Member) -> None:
        member.restart_at = None
        member.sockets = member.sockets or self._address.open()
        member.started_at = time.monotonic()
        process = self._fork(target=self._run_member, args=(member,), name=f"api-{member.number}")
        process.start()
        member.process = process

    def _restart(self, member: _Member) -> None:
        try:
            self._start(member)
        except (OSError, ConfigurationError) as error:
            # Too many processes, or another service on the port while all sockets were closed: it may pass.
            self._replace(member, f"could not be started ({error})")

    def _replace(self, member: _Member, what: str) -> None:
        """Start another process, after a pause when the one that ended was not the first in a while."""
        if time.monotonic() - member.started_at >= HEALTHY_SECONDS:
            member.pause = 0.0
        pause, member.pause = member.pause, min(max(2 * member.pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        when = f"in {pause:g} s" if pause else "now"
        logger.error("a process of the API %s; it is restarted %s", what, when, extra={"member": member.number})
        if pause:
            member.close()
            member.restart_at = time.monotonic() + pause
        else:
            self._restart(member)

    def _run_member(self, member: _Member) -> None:
        """The forked process, from its start to its end."""
        die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if os.getppid() != self._pid:
            # The parent ended before this process asked to end with it.
            return
        for other in self._members:
            if other is not member:
                other.close()
        self._group.join(member.number)
        try:
            self._serve(member.sockets)
        except KeyboardInterrupt:
            # uvicorn has stopped, and raises the signal again.
            return

    def _stop(self) -> None:
        """Stop all processes: with SIGTERM, another SIGINT meanwhile is passed on, and SIGKILL at the end."""
        for member in self._members:
            # Otherwise the kernel would still accept connections.
            member.close()
            member.send(signal.SIGTERM)
        deadline = time.monotonic() + self._stop_seconds
        while any(member.running for member in self._members):
            if (left := deadline - time.monotonic()) <= 0:
                self._kill()
                return
            received = signal.sigtimedwait(_SIGNALS, left)
            if received is not None and received.si_signo == signal.SIGINT:
                for member in self._members:
                    member.send(signal.SIGINT)

    def _kill(self) -> None:
        for member in self._members:
            if member.process is not None and member.running:
                logger.error("a process of the API has not stopped, it is killed", extra={"member": member.number})
                member.process.kill()
                member.process.join()
