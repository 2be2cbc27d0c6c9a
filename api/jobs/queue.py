"""Operations of queue clients: retry a job, purge what waits, and the counts that describe a queue."""

from shared.errors import InvalidRequest
from shared.keys import queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobRecord
from shared.ledger.queue_ledger import JobCounts, QueueLedger
from shared.queue.messages import MessageBuilder

PURGE_SECONDS = 0.7
"""The longest time of one purge: its callers wait a second or three."""


class JobQueue:
    """The queues of all pools. Every method raises StoreUnavailable when Redis is unreachable."""

    def __init__(
        self, jobs: JobLedger, queues: QueueLedger, messages: MessageBuilder, *, deadline_seconds: float
    ) -> None:
        """`deadline_seconds`: a retried job expires when it has not ended by then."""
        self._jobs = jobs
        self._queues = queues
        self._messages = messages
        self._deadline_seconds = deadline_seconds

    async def retry(self, record: JobRecord) -> None:
        """Queue a failed or expired job again, with the same id and request. Raises InvalidRequest for other jobs."""
        wake_ups = await self._jobs.retry_failed(record, self._deadline_seconds)
        if wake_ups is None:
            raise InvalidRequest(
                f"id: only a job that failed or timed out can be retried, this one is {record.status}", param="id"
            )
        name = queue_keys.queue_name(record.model, record.work_class)
        messages = [self._messages.build(name, wake_up.job_id, wake_up.shard) for wake_up in wake_ups]
        await self._jobs.enqueue(queue_keys.queue(record.model, record.work_class), messages)

    async def purge(self, model: str, owner: str) -> int:
        """Cancel the owner's jobs that no worker has started, within PURGE_SECONDS. Returns how many."""
        return await self._queues.purge(model, owner, PURGE_SECONDS)

    async def counts(self, model: str) -> JobCounts:
        """How many jobs of the model have ended so far."""
        return await self._queues.counts(model)

    async def take_stream(self, job_id: str) -> bool:
        """Whether the job's output was not streamed before. Returns True once."""
        return await self._queues.mark_streamed(job_id)

    async def shorten(self, record: JobRecord, seconds: float) -> None:
        """Delete an ended job after `seconds` at the latest; another one so long after its end."""
        await self._queues.shorten(record.id, record.model, seconds)
