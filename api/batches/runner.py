"""Runs the unfinished batches of the deployment that no other process runs.

Each batch has a lease of its own, so several runners share the batches, and continue those of one that was killed.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from secrets import token_hex

from api.background_tasks import cancel_and_wait
from api.batches.batch_run import BatchRun
from api.batches.batch_writer import BatchWriter, OnRows
from api.batches.line_requests import LineParser
from api.batches.line_runner import LineRunner
from api.batches.window import SharedBytes, Window
from api.dialects.registry import Family
from api.payloads.base import PayloadStore
from api.payloads.names import PayloadNames
from api.pool_monitor import PoolMonitor
from shared.errors import StoreDamaged, StoreUnavailable
from shared.ledger.batch_ledger import BatchLedger, BatchLost
from shared.ledger.batch_record import BatchError, BatchRecord, BatchStatus
from shared.ledger.job_ledger import JobLedger
from shared.models import ModelRegistry

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.1
MAX_RUNNING = 32
"""Batches that one process runs at once; each may hold a window of lines in memory."""
MAX_CRASHES = 3
"""A batch whose run raised an unexpected error this often fails."""


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """`max_line_bytes`: the longest line. `max_lines`: the most lines of a batch. `shard_tokens`: see Limits."""

    max_line_bytes: int
    max_lines: int
    shard_tokens: int


class Runner:
    """Runs batches in this process."""

    def __init__(
        self,
        *,
        batches: BatchLedger,
        jobs: JobLedger,
        lines: LineRunner,
        pools: PoolMonitor,
        payloads: PayloadStore,
        names: PayloadNames,
        models: ModelRegistry,
        root: Family,
        limits: RunnerLimits,
        on_rows: OnRows = lambda outcome, count: None,
    ) -> None:
        """`on_rows`: see BatchWriter."""
        self._batches = batches
        self._jobs = jobs
        self._lines = lines
        self._pools = pools
        self._payloads = payloads
        self._names = names
        self._models = models
        self._root = root
        self._limits = limits
        self._on_rows = on_rows
        self._running: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, str] = {}
        self._crashes: Counter[str] = Counter()
        self._shared = SharedBytes()

    async def run(self, until_idle_seconds: float | None = None) -> None:
        """Run batches until cancelled, or until there was none for `until_idle_seconds`."""
        idle_since = time.monotonic()
        try:
            while True:
                try:
                    if await self._start_batches() or self._running:
                        idle_since = time.monotonic()
                except StoreDamaged as error:
                    logger.error("the unfinished batches cannot be read", extra={"error": error})
                except StoreUnavailable:
                    # The pool monitor logs that Redis is unreachable.
                    idle_since = time.monotonic()
                if until_idle_seconds is not None and time.monotonic() - idle_since > until_idle_seconds:
                    return
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            await cancel_and_wait(self._running.values())

    async def _start_batches(self) -> int:
        """Acquire batches that no process runs. Returns how many unfinished batches there are."""
        open_batches = await self._batches.open_batches()
        waiting = [batch_id for batch_id in open_batches if batch_id not in self._running]
        while waiting and len(self._running) < MAX_RUNNING:
            batch_id = await self._next_of(waiting)
            waiting.remove(batch_id)
            token = token_hex(16)
            if await self._batches.acquire(batch_id, token):
                task = asyncio.create_task(self._run(batch_id, token))
                self._running[batch_id] = task
                task.add_done_callback(partial(self._forget, batch_id))
        return len(open_batches)

    async def _next_of(self, waiting: list[str]) -> str:
        """The oldest batch of the owner with the fewest running ones."""
        if len(waiting) == 1:
            return waiting[0]
        for batch_id in waiting:
            if batch_id not in self._owners:
                self._owners[batch_id] = await self._owner_of(batch_id)
        running = Counter(self._owners.get(batch_id, "") for batch_id in self._running)
        return min(waiting, key=lambda batch_id: running[self._owners[batch_id]])

    async def _owner_of(self, batch_id: str) -> str:
        try:
            record = await self._batches.read(batch_id)
        except StoreDamaged:
            # One damaged batch must not block the others.
            return ""
        return record.owner if record else ""

    def _forget(self, batch_id: str, _: "asyncio.Task[None]") -> None:
        del self._running[batch_id]
        self._owners.pop(batch_id, None)

    async def _run(self, batch_id: str, token: str) -> None:
        try:
            record = await self._batches.read(batch_id)
            if record is None or record.status.final:
                await self._batches.release(batch_id, token)
                return
            self._owners[batch_id] = record.owner
            writer = await self._writer(record, token)
            if self._crashes[batch_id] >= MAX_CRASHES:
                message = "the batch runner failed on this batch; the server's log has the reason"
                await writer.end(BatchStatus.FAILED, [BatchError("internal_error", message)])
                return
            await self._batch_run(record, writer).run()
        except BatchLost:
            logger.info("the batch is run by another process, or was deleted", extra={"batch": batch_id})
        except StoreDamaged as error:
            self._crashes[batch_id] += 1
            if self._crashes[batch_id] >= MAX_CRASHES:
                logger.error("a batch is given up, its record is damaged", extra={"batch": batch_id, "error": error})
                await self._batches.forget(batch_id)
            await asyncio.sleep(1.0)
        except StoreUnavailable as error:
            logger.warning("a batch is continued later", extra={"batch": batch_id, "error": error})
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            await self._release(batch_id, token)
            raise
        except Exception:
            logger.exception("a batch stopped unexpectedly, and is run again", extra={"batch": batch_id})
            self._crashes[batch_id] += 1
            await self._release(batch_id, token)

    async def _release(self, batch_id: str, token: str) -> None:
        try:
            await self._batches.release(batch_id, token)
        except StoreUnavailable:
            logger.info("the lease of a batch expires by itself", extra={"batch": batch_id})

    async def _writer(self, record: BatchRecord, token: str) -> BatchWriter:
        return BatchWriter(
            record,
            token,
            ledger=self._batches,
            jobs=self._jobs,
            payloads=self._payloads,
            names=self._names,
            seconds_left=await self._batches.seconds_left(record),
            on_rows=self._on_rows,
        )

    def _batch_run(self, record: BatchRecord, writer: BatchWriter) -> BatchRun:
        limits = self._limits
        return BatchRun(
            record,
            writer=writer,
            parser=LineParser(record.endpoint, record.defaults, self._root, limits.max_line_bytes),
            runner=self._lines,
            window=Window(self._pools, limits.shard_tokens, self._shared),
            payloads=self._payloads,
            models=self._models,
            max_line_bytes=limits.max_line_bytes,
            max_lines=limits.max_lines,
        )
