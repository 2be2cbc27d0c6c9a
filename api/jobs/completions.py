"""Notifies waiting requests when their jobs end, over one Redis pub/sub connection.

Each process has a channel of its own: it receives nothing about jobs that only other processes wait for.
Redis may lose a pub/sub message. So the listener also polls the states of all awaited jobs, after every (re)connection
and once a second: a lost message delays a response by up to a second. A message includes the result when it is small,
which saves reading it.
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

POLL_SECONDS = 1.0
_RECONNECT_SECONDS = 0.5


class JobCompletion(asyncio.Event):
    """Set when a job has ended.

    `scores` is the encoded result of the job's only shard, when the message included it. The waiting code sets
    `accepted` once the job is stored. `lost`: the job was accepted, and Redis no longer has it.
    """

    accepted = False
    lost = False
    scores: bytes | None = None


class CompletionListener:
    """Sets the JobCompletion of every awaited job that ends, while `run` runs."""

    def __init__(self, client: redis.asyncio.Redis, ledger: JobLedger) -> None:
        """`ledger` is the one that submits the jobs: they name its channel."""
        self._client = client
        self._channel = job_keys.job_ended_channel(ledger.listener)
        self._ledger = ledger
        self._connected = True
        self._waiting: defaultdict[str, set[JobCompletion]] = defaultdict(set)

    @contextmanager
    def expect(self, job_id: str) -> Iterator[JobCompletion]:
        """An event that is set when the job has ended. Enter before you submit the job or read its state."""
        completion = JobCompletion()
        self._waiting[job_id].add(completion)
        try:
            yield completion
        finally:
            self._waiting[job_id].discard(completion)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def run(self) -> None:
        """Listen and poll until cancelled."""
        tasks = {asyncio.create_task(self._listen()), asyncio.create_task(self._poll_regularly())}
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(tasks)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await channel.subscribe(self._channel)
                    self._set_connected(True)
                    await self._poll()
                    # get_message returns None after the timeout.
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=POLL_SECONDS)
                        if message is not None:
                            self._complete(*parse_notification(message["data"]))
            except (RedisError, OSError) as error:
                self._set_connected(False, str(error))
                await asyncio.sleep(_RECONNECT_SECONDS)

    def _set_connected(self, connected: bool, reason: str = "") -> None:
        """Log a change of the connection's state once, whatever the number of attempts."""
        if self._connected and not connected:
            logger.warning("lost the pub/sub connection, polling for finished jobs meanwhile", extra={"error": reason})
        elif connected and not self._connected:
            logger.warning("the pub/sub connection is restored")
        self._connected = connected

    async def _poll_regularly(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._poll()

    async def _poll(self) -> None:
        """Complete every awaited job that has ended or is lost."""
        if not (job_ids := list(self._waiting)):
            return
        # Collected before the read: a job that is accepted during the read may be missing from its result.
        accepted = {completion for waiting in self._waiting.values() for completion in waiting if completion.accepted}
        try:
            states = await self._ledger.statuses(job_ids)
        except StoreUnavailable:
            # The next poll tries again; the pool monitor logs that Redis is unreachable.
            return
        for job_id, state in states.items():
            if state is None:
                # A job that is not accepted may be in the middle of its submission.
                for completion in accepted.intersection(self._waiting.get(job_id, ())):
                    completion.lost = True
                    completion.set()
            elif state.final:
                self._complete(job_id)

    def _complete(self, job_id: str, scores: bytes | None = None) -> None:
        for completion in self._waiting.get(job_id, ()):
            completion.scores = scores
            completion.set()


def parse_notification(message: bytes) -> tuple[str, bytes | None]:
    """The id of the job that ended, and its encoded result if the message includes it; see lua/_common.lua."""
    job_id, _, scores = message.partition(b" ")
    return job_id.decode(errors="replace"), scores or None
