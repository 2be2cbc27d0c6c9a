"""Looks at the ledger from outside, with a connection of its own. Reads, never writes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.contracts import WorkClass
from shared.keys import PREFIX, job_keys, pool_keys, queue_keys, service_keys
from shared.ledger.job_record import JobStatus
from shared.pools.heartbeats import WorkerState, read_heartbeats
from tests.chaos.cases import number_in

_TIMEOUT_SECONDS = 3.0
_LEASED = "leased"


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as the ledger has it. `accepted` is how many finishes were taken for it."""

    status: str
    token: str
    accepted: int
    crashes: int = 0
    rings: int = 0

    def __str__(self) -> str:
        holder = f" by {self.token.split(':')[0].rpartition('-')[2]}" if self.token else ""
        return f"{self.status}{holder}, {self.crashes} crashes, rung {self.rings} times in vain"


@dataclass(frozen=True, slots=True)
class Job:
    """One job and all its shards, as they were at one moment."""

    status: JobStatus
    failure: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard in somebody's hands."""

    job_id: str
    shard: int
    token: str

    def held_by(self, pid: int) -> bool:
        """Tokens begin with the worker's name, which ends with its pid."""
        return self.token.split(":")[0].rpartition("-")[2] == str(pid)

    def is_over(self, job: Job | None) -> bool:
        """Whether the shard is done, its job has ended, or somebody has claimed it anew."""
        if job is None or job.status.final:
            return True
        shard = job.shards[self.shard]
        return shard.status == "done" or (shard.status == _LEASED and shard.token != self.token)


class LedgerView:
    """Every method raises redis.RedisError while Redis is away."""

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
        """Whether Redis answers, and has read its file."""
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False

    def job_ids(self) -> set[str]:
        """Every job there is."""
        start = job_keys.job("")
        names = {name.removeprefix(start) for name in self._scan(f"{start}*")}
        return {name for name in names if ":" not in name}

    def read(self, job_ids: Iterable[str]) -> dict[str, Job | None]:
        """The jobs, each with its shards as of the same moment; None for one that is not there."""
        wanted = list(job_ids)
        if not wanted:
            return {}
        with self._client.pipeline(transaction=True) as pipe:
            for job_id in wanted:
                pipe.hgetall(job_keys.job(job_id))
                pipe.hgetall(job_keys.shards(job_id))
            answers = pipe.execute()
        pairs = zip(answers[::2], answers[1::2], strict=True)
        return {job_id: _job(fields, shards) for job_id, (fields, shards) in zip(wanted, pairs, strict=True)}

    def case_numbers(self, job_ids: Iterable[str]) -> dict[str, int | None]:
        """Which case each job is of; None where it cannot be told any more."""
        wanted = list(job_ids)
        if not wanted:
            return {}
        requests: list[str | None] = self._client.mget([job_keys.request(job_id) for job_id in wanted])  # type: ignore[assignment]
        return {job_id: number_in(text or "") for job_id, text in zip(wanted, requests, strict=True)}

    def leases(self, pids: Collection[int] | None = None) -> list[Lease]:
        """The shards that are held now: by these processes, or by anybody."""
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
        """Processes whose last heartbeat says that they take work; some may have died since."""
        beats = read_heartbeats(self._raw.hgetall(pool_keys.workers(self._model)))  # type: ignore[arg-type]
        return {int(beat.worker.rpartition("-")[2]) for beat in beats if beat.state is WorkerState.READY}

    def left_over(self) -> dict[str, int]:
        """What should be empty when nothing is to be done, and is not: key -> how much is in it."""
        queues = [queue_keys.queue(self._model, work_class) for work_class in WorkClass]
        counts: dict[str, Any] = {name: self._client.llen(name) for name in queues}
        counts[f"{PREFIX}unacked"] = self._client.hlen(f"{PREFIX}unacked")
        counts[f"{PREFIX}unacked_index"] = self._client.zcard(f"{PREFIX}unacked_index")
        for name in (pool_keys.outstanding(self._model), pool_keys.deadlines(self._model)):
            counts[name] = self._client.zcard(name)
        return {name: count for name, count in counts.items() if count}

    def job_keys(self) -> list[str]:
        """Every key that should be gone once the jobs have outlived their time."""
        patterns = (f"{job_keys.job('')}*", f"{PREFIX}lease:*", f"{PREFIX}idempotency:*")
        return sorted(name for pattern in patterns for name in self._scan(pattern))

    def buried(self) -> str:
        """The dead list, as one text."""
        return "\n".join(self._client.lrange(job_keys.DEAD_LETTERS, 0, -1))  # type: ignore[arg-type]

    def reconciler(self) -> str:
        """Who reconciles now, empty when nobody does."""
        return str(self._client.get(service_keys.RECONCILER_LEADER) or "")

    def reconciler_ms(self) -> int:
        """How long its lock still lasts."""
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
                rings=int(shards.get(f"{number}:resends", 0)),
            )
            for number in range(int(fields["shards"]))
        ),
    )
