"""The way back: one pub/sub connection, and the callers that wait for a job to end.

A message on the channel is a doorbell and may be lost without a trace. So everybody who waits is swept: all of them
after every (re)connection, and in one pipeline every second. A lost doorbell costs a second, never an answer. A small
result comes with its doorbell: whoever hears that one need not read it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import redis.asyncio
from redis.exceptions import RedisError

from api.background_tasks import cancel_and_wait
from shared.errors import StoreUnavailable
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
_RECONNECT_SECONDS = 0.5


class JobCompletion(asyncio.Event):
    """Set when a job has ended. `scores` is its only shard's accepted scores as the worker wrote them, if they came.

    `accepted` is to be set when the job is known to be in the store. When it is there no more, and nobody has said that
    it ended, it is `lost`.
    """

    accepted = False
    lost = False
    scores: bytes | None = None


class CompletionListener:
    """Wakes those who wait for jobs. `run` must be running."""

    def __init__(self, client: redis.asyncio.Redis, ledger: JobLedger) -> None:
        self._client = client
        self._ledger = ledger
        self._connected = True
        self._waiting: defaultdict[str, set[JobCompletion]] = defaultdict(set)

    @contextmanager
    def expect(self, job_id: str) -> Iterator[JobCompletion]:
        """An event that is set when the job has ended. Enter before the job is submitted or its state read."""
        event = JobCompletion()
        self._waiting[job_id].add(event)
        try:
            yield event
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def run(self) -> None:
        """Listen and sweep until cancelled."""
        tasks = {asyncio.create_task(self._listen()), asyncio.create_task(self._sweep_regularly())}
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(tasks)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await channel.subscribe(job_keys.JOB_ENDED_CHANNEL)
                    self._set_connected(True)
                    await self._sweep()
                    # A read that times out is a quiet second, not an error.
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=SWEEP_SECONDS)
                        if message is not None:
                            self._ring(*parse_notification(message["data"]))
            except (RedisError, OSError) as error:
                self._set_connected(False, str(error))
                await asyncio.sleep(_RECONNECT_SECONDS)

    def _set_connected(self, connected: bool, reason: str = "") -> None:
        """Log a change once, however often the connection is tried meanwhile."""
        if self._connected and not connected:
            logger.warning("the reply channel broke, waiting callers are swept meanwhile: %.200s", reason)
        elif connected and not self._connected:
            logger.warning("the reply channel is there again")
        self._connected = connected

    async def _sweep_regularly(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self._sweep()

    async def _sweep(self) -> None:
        """Ring for every awaited job that has ended or is gone."""
        if not (waiting := list(self._waiting)):
            return
        # Before the store is asked: one that is accepted meanwhile may be gone in an answer that is older.
        accepted = {event for events in self._waiting.values() for event in events if event.accepted}
        try:
            states = await self._ledger.statuses(waiting)
        except StoreUnavailable:
            # Looked up again in a second; the pool watch has said by now that Redis is away.
            return
        for job_id, state in states.items():
            if state is None:
                # Or it is being submitted just now.
                for event in accepted.intersection(self._waiting.get(job_id, ())):
                    event.lost = True
                    event.set()
            elif state.final:
                self._ring(job_id)

    def _ring(self, job_id: str, scores: bytes | None = None) -> None:
        for event in self._waiting.get(job_id, ()):
            event.scores = scores
            event.set()


def parse_notification(message: bytes) -> tuple[str, bytes | None]:
    """The job that has ended, and its result where it was told too; see lua/_common.lua."""
    job_id, _, scores = message.partition(b" ")
    return job_id.decode(errors="replace"), scores or None
