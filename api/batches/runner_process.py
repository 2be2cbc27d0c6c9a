"""Starts a batch runner as a child process while there are batches that no process runs, and stops it with the API.

A process of its own: parsing and rendering a million lines in the API's event loop would delay interactive calls. It
ends by itself when there is no batch for a while. Of the API processes that serve one address, one at a time starts it.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from contextlib import suppress

from api.processes.group import GroupLock
from api.settings import ApiSettings
from shared.errors import StoreUnavailable
from shared.ledger.batch_ledger import BatchLedger
from shared.processes import describe_exit, die_with_parent

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
IDLE_SECONDS = 60.0
STOP_SECONDS = 8.0
HEALTHY_SECONDS = 60.0
"""A runner that ran this long counts as recovered: its next restart has the shortest pause again."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


class RunnerProcess:
    """Keeps a runner while batches wait; `run` does it."""

    def __init__(self, settings: ApiSettings, batches: BatchLedger, lock: GroupLock) -> None:
        self._settings = settings
        self._batches = batches
        self._lock = lock
        self._process: Process | None = None
        self._wanted = asyncio.Event()
        self._pause = _FIRST_PAUSE_SECONDS

    def wake(self) -> None:
        """Look for batches now: one was created."""
        self._wanted.set()

    async def run(self) -> None:
        """Start a runner when one is needed, until cancelled; then stop it."""
        try:
            while True:
                with suppress(StoreUnavailable):
                    if await self._batches.idle_batches() and self._lock.acquire():
                        await self._run_process()
                        self._lock.release()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await self._wanted.wait()
                self._wanted.clear()
        finally:
            await asyncio.shield(self._stop())

    async def _run_process(self) -> None:
        """Start the runner and wait until it ends; after a failure also for a pause, which doubles each time."""
        command = [sys.executable, "-m", "api", "batches", "--until-idle", f"{IDLE_SECONDS:g}"]
        environment = os.environ | self._settings.to_environment()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, env=environment, preexec_fn=die_with_parent
            )
        except OSError as error:
            logger.error("the batch runner could not be started", extra={"error": error})
            status = 1
        else:
            started = time.monotonic()
            status = await self._process.wait()
            self._process = None
            if time.monotonic() - started > HEALTHY_SECONDS:
                self._pause = _FIRST_PAUSE_SECONDS
        if status == 0:
            self._pause = _FIRST_PAUSE_SECONDS
            return
        logger.error("the batch runner %s; it is restarted in %g s", describe_exit(status), self._pause)
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    async def _stop(self) -> None:
        if (process := self._process) is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
