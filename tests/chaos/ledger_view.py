"""A read-only view of the ledger, with its own Redis connections."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.contracts import WorkClass
from shared.keys import PREFIX, batch_keys, job_keys, pool_keys, queue_keys, service_keys
from shared.ledger.batch_record import Segment
from shared.ledger.job_record import JobStatus
from shared.pools.heartbeats import WorkerState, read_heartbeats
from tests.chaos.cases import find_case_number

_TIMEOUT_SECONDS = 3.0
_LEASED = "leased"
_LINE_JOB_PREFIX = "batch_"


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard in the ledger. `accepted` counts its accepted finishes, `resends` its repeated wake-up messages."""

    status: str
    token: str
    accepted: int
    crashes: int = 0
    resends: int = 0

    def __str__(self) -> str:
        holder = f" by {self.token.split(':')[0].rpartition('-')[2]}" if self.token else ""
        return f"{self.status}{holder}, {self.crashes} crashes, {self.resends} resends"


@dataclass(frozen=True, slots=True)
class Job:
    """A consistent snapshot of one job and its shards."""

    status: JobStatus
    failure: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's claim on a shard."""

    job_id: str
    shard: int
    token: str

    @property
    def of_line(self) -> bool:
        """Whether the shard belongs to a line of a batch."""
        return self.job_id.startswith(_LINE_JOB_PREFIX)

    def held_by(self, pid: int) -> bool:
        """Whether the process holds the lease. A token begins with the worker's name, which ends with its pid."""
        return self.token.split(":")[0].rpartition("-")[2] == str(pid)

    def is_over(self, job: Job | None) -> bool:
        """Whether the shard is done, its job has ended, or a worker has claimed the shard again."""
        if job is None or job.status.final:
            return True
        shard = job.shards[self.shard]
        return shard.status == "done" or (shard.status == _LEASED and shard.token != self.token)


class LedgerView:
    """Every method but `ping` raises redis.RedisError while Redis is unreachable."""

    def __init__(self, port: int, model: str) -> None:
        self._model = model
        self._client, self._raw = (
            redis.Redis(
                port=port,
                socket_timeout=_TIMEOUT_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
                decode_responses=decode,
            )
            for decode in (True, False)
        )

    def close(self) -> None:
        self._client.close()
        self._raw.close()

    def ping(self) -> bool:
        """Whether Redis responds and has loaded its append-only file."""
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False

    def job_ids(self) -> set[str]:
        """The ids of all jobs in Redis, without those of the lines of batches."""
        start = job_keys.job("")
        names = {name.removeprefix(start) for name in self._scan(f"{start}*")}
        return {name for name in names if ":" not in name and not name.startswith(_LINE_JOB_PREFIX)}

    def read(self, job_ids: Iterable[str]) -> dict[str, Job | None]:
        """Return the jobs, all read at the same moment; None for a job that does not exist."""
        wanted = list(job_ids)
        if not wanted:
            return {}
        with self._client.pipeline(transaction=True) as pipe:
            for job_id in wanted:
                pipe.hgetall(job_keys.job(job_id))
                pipe.hgetall(job_keys.shards(job_id))
            replies = pipe.execute()
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return {job_id: _job(fields, shards) for job_id, (fields, shards) in zip(wanted, pairs, strict=True)}

    def case_numbers(self, job_ids: Iterable[str]) -> dict[str, int | None]:
        """Return the case number of each job; None if its request is no longer stored."""
        wanted = list(job_ids)
        if not wanted:
            return {}
        requests: list[str | None] = self._client.mget([job_keys.request(job_id) for job_id in wanted])  # type: ignore[assignment]
        return {job_id: find_case_number(text or "") for job_id, text in zip(wanted, requests, strict=True)}

    def leases(self, pids: Collection[int] | None = None) -> list[Lease]:
        """The current leases: of these processes, or of all."""
        members: list[str] = self._client.zrange(pool_keys.outstanding(self._model), 0, -1)  # type: ignore[assignment]
        found = [
            Lease(job_id, number, shard.token)
            for job_id, job in self.read({member.partition("/")[0] for member in members}).items()
            if job is not None and not job.status.final
            for number, shard in enumerate(job.shards)
            if shard.status == _LEASED
        ]
        return found if pids is None else [lease for lease in found if any(lease.held_by(pid) for pid in pids)]

    def ready_pids(self) -> set[int]:
        """Pids of workers whose last heartbeat says ready; some may have died since."""
        beats = read_heartbeats(self._raw.hgetall(pool_keys.workers(self._model)))  # type: ignore[arg-type]
        return {int(beat.worker.rpartition("-")[2]) for beat in beats if beat.state is WorkerState.READY}

    def leftover_counts(self) -> dict[str, int]:
        """Return the size of each queue and index that is not empty, by key. Without work all are empty."""
        queues = [queue_keys.queue(self._model, work_class) for work_class in WorkClass]
        counts: dict[str, Any] = {name: self._client.llen(name) for name in queues}
        counts[f"{PREFIX}unacked"] = self._client.hlen(f"{PREFIX}unacked")
        counts[f"{PREFIX}unacked_index"] = self._client.zcard(f"{PREFIX}unacked_index")
        for name in (pool_keys.outstanding(self._model), pool_keys.deadlines(self._model)):
            counts[name] = self._client.zcard(name)
        return {name: count for name, count in counts.items() if count}

    def job_keys(self) -> list[str]:
        """All keys of jobs. None must be left when the jobs have expired."""
        patterns = (f"{job_keys.job('')}*", f"{PREFIX}lease:*", f"{PREFIX}idempotency:*")
        return sorted(name for pattern in patterns for name in self._scan(pattern))

    def line_job_keys(self) -> list[str]:
        """All keys of jobs that are lines of batches."""
        return self._scan(f"{job_keys.job(_LINE_JOB_PREFIX)}*")

    def batch(self, batch_id: str) -> dict[str, str]:
        """The fields of a batch's record."""
        fields: dict[str, str] = self._client.hgetall(batch_keys.batch(batch_id))  # type: ignore[assignment]
        return fields

    def batch_lease_ms(self, batch_id: str) -> int:
        """Remaining milliseconds of the lease of the batch's runner; negative if no runner holds it."""
        left: int = self._client.pttl(batch_keys.runner(batch_id))
        return left

    def segments(self, batch_id: str) -> list[Segment]:
        """The batch's segments, in order."""
        found: list[str] = self._client.lrange(batch_keys.segments(batch_id), 0, -1)  # type: ignore[assignment]
        return [Segment.from_json(text) for text in found]

    def leftovers_of_batches(self) -> dict[str, int]:
        """Return the size of each key that is not empty, by key. When all batches have ended, all are empty."""
        unpublished = pool_keys.unpublished(self._model)
        counts: dict[str, Any] = {
            batch_keys.OPEN_BATCHES: self._client.zcard(batch_keys.OPEN_BATCHES),
            unpublished: self._client.hlen(unpublished),
        }
        counts |= dict.fromkeys(self._scan(batch_keys.runner("*")), 1)
        return {name: count for name, count in counts.items() if count}

    def dead_letters(self) -> str:
        """The dead-letter list as one text."""
        return "\n".join(self._client.lrange(job_keys.DEAD_LETTERS, 0, -1))  # type: ignore[arg-type]

    def reconciler_name(self) -> str:
        """The name of the process that reconciles; empty if there is none."""
        return str(self._client.get(service_keys.RECONCILER_LEADER) or "")

    def reconciler_lock_ms(self) -> int:
        """Remaining milliseconds of the reconciler's lock."""
        left: int = self._client.pttl(service_keys.RECONCILER_LEADER)
        return left

    def _scan(self, pattern: str) -> list[str]:
        return list(self._client.scan_iter(pattern, count=1000))


def _job(fields: dict[str, str], shards: dict[str, str]) -> Job | None:
    if not fields:
        return None
    return Job(
        status=JobStatus(fields["status"]),
        failure=fields.get("failure", ""),
        shards=tuple(
            Shard(
                status=shards.get(f"{number}:status", ""),
                token=shards.get(f"{number}:token", ""),
                accepted=int(shards.get(f"{number}:finishes_accepted", 0)),
                crashes=int(shards.get(f"{number}:crashes", 0)),
                resends=int(shards.get(f"{number}:resends", 0)),
            )
            for number in range(int(fields["shards"]))
        ),
    )
