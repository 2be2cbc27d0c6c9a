"""The ledger: the truth about jobs and shards. Every change is one Lua script; nothing else writes these keys.

`Ledger` is the API's half (asyncio: submit, read, cancel, delete), `WorkerLedger` the worker's (blocking: claim,
finish, fail). Both raise StoreUnavailable when Redis cannot be reached or refuses to write.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from shared import codec, keys
from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.jobs import JobFailure, JobRecord, JobState
from shared.redis_client import store_errors

_LUA = Path(__file__).parent / "lua"


def script_source(name: str) -> str:
    """The text of one operation, the common part in front."""
    return (_LUA / "_common.lua").read_text() + (_LUA / f"{name}.lua").read_text()


class ClaimVerdict(StrEnum):
    """What claim.lua answers."""

    RUN = "run"
    GONE = "gone"
    ENDED = "ended"
    DONE = "done"
    HELD = "held"


class FinishVerdict(StrEnum):
    """What finish.lua and fail.lua answer."""

    ACCEPTED = "accepted"
    STALE = "stale"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a job's keys live, in seconds: after its end, and at most when it never ends."""

    result: float = 3600.0
    unfinished: float = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Submission:
    """What the ledger needs to accept a job. `envelopes` holds one Celery message for each shard."""

    job_id: str
    request: RerankRequest
    model: str
    dialect: str
    owner: str
    work_class: WorkClass
    envelopes: list[bytes]
    deadline_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim's answer; `request` is there when the verdict is RUN. `queue_ms` is the wait since acceptance."""

    verdict: ClaimVerdict
    request: RerankRequest | None = None
    queue_ms: float = 0.0


def _job_keys(job_id: str, model: str) -> list[str]:
    return [
        keys.job(job_id),
        keys.request(job_id),
        keys.shards(job_id),
        keys.results(job_id),
        keys.outstanding(model),
    ]


class Ledger:
    """The API's half."""

    def __init__(self, client: redis.asyncio.Redis, lifetimes: Lifetimes | None = None) -> None:
        self._client = client
        self._lifetimes = lifetimes or Lifetimes()
        self._submit = client.register_script(script_source("submit"))
        self._cancel = client.register_script(script_source("cancel"))
        self._delete = client.register_script(script_source("delete"))

    async def submit(self, submission: Submission) -> int:
        """Accept a job; answers the time of acceptance in Unix milliseconds."""
        script_keys = [
            keys.job(submission.job_id),
            keys.request(submission.job_id),
            keys.shards(submission.job_id),
            keys.outstanding(submission.model),
            keys.queue(submission.model, submission.work_class),
        ]
        args: list[str | bytes | int] = [
            submission.job_id,
            codec.encode_request(submission.request),
            int(self._lifetimes.result * 1000),
            int(self._lifetimes.unfinished * 1000),
            int((submission.deadline_seconds or 0) * 1000),
            submission.model,
            submission.dialect,
            submission.owner,
            submission.work_class,
            len(submission.request.documents),
            *submission.envelopes,
        ]
        with store_errors():
            return int(await self._submit(keys=script_keys, args=args))

    async def read(self, job_id: str) -> JobRecord | None:
        """The job's record, None when there is none."""
        with store_errors():
            fields: Any = await self._client.hgetall(keys.job(job_id))
        return JobRecord.from_hash(job_id, fields) if fields else None

    async def read_finished(self, job_id: str) -> tuple[JobRecord | None, list[ShardScores]]:
        """The record and the accepted scores, shard by shard, in one round trip."""
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.hgetall(keys.job(job_id))
                pipe.hgetall(keys.results(job_id))
                fields, results = await pipe.execute()
        record = JobRecord.from_hash(job_id, fields) if fields else None
        ordered = [results[shard] for shard in sorted(results, key=int)]
        return record, [codec.decode_scores(payload) for payload in ordered]

    async def read_request(self, job_id: str) -> RerankRequest | None:
        """The request as it was accepted, None when it is gone."""
        with store_errors():
            payload: Any = await self._client.get(keys.request(job_id))
        return codec.decode_request(payload) if payload else None

    async def states(self, job_ids: list[str]) -> dict[str, JobState | None]:
        """The states of many jobs in one round trip; None for a job that is gone."""
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.hget(keys.job(job_id), "state")
                answers = await pipe.execute()
        return {
            job_id: JobState(state.decode()) if state else None for job_id, state in zip(job_ids, answers, strict=True)
        }

    async def cancel(self, record: JobRecord) -> JobState | None:
        """Cancel a job; answers the state it is in afterwards, None when it is gone."""
        with store_errors():
            state = await self._cancel(keys=_job_keys(record.id, record.model), args=[record.id, keys.FINISHED_CHANNEL])
        return JobState(state.decode()) if state else None

    async def delete(self, record: JobRecord) -> bool:
        """Remove a job and its result; False when it was gone already."""
        with store_errors():
            answer = await self._delete(
                keys=_job_keys(record.id, record.model), args=[record.id, keys.FINISHED_CHANNEL]
            )
        return bool(answer)


class WorkerLedger:
    """The worker's half, for the jobs of one model. Safe to share between threads."""

    def __init__(self, client: redis.Redis, model: str, *, lease_seconds: float = 60.0) -> None:
        self._model = model
        self._lease_ms = int(lease_seconds * 1000)
        self._result_ceiling_ms = int(Lifetimes().unfinished * 1000)
        self._claim: Any = client.register_script(script_source("claim"))
        self._finish: Any = client.register_script(script_source("finish"))
        self._fail: Any = client.register_script(script_source("fail"))

    def claim(self, job_id: str, shard: int, token: str) -> Claim:
        """Take a shard under a fencing token that is new for every claim."""
        args = [job_id, shard, token, self._lease_ms, keys.FINISHED_CHANNEL]
        with store_errors():
            verdict, *rest = self._claim(keys=_job_keys(job_id, self._model), args=args)
        if verdict != b"run":
            return Claim(ClaimVerdict(verdict.decode()))
        payload, queue_ms = rest
        return Claim(ClaimVerdict.RUN, codec.decode_request(payload), float(queue_ms))

    def finish(self, job_id: str, shard: int, token: str, scores: ShardScores) -> FinishVerdict:
        """Hand in a shard's scores. Anything but ACCEPTED means that they were dropped."""
        payload = codec.encode_scores(scores)
        args = [job_id, shard, token, payload, keys.FINISHED_CHANNEL, self._result_ceiling_ms]
        with store_errors():
            answer = self._finish(keys=_job_keys(job_id, self._model), args=args)
        return FinishVerdict(answer.decode())

    def fail(self, job_id: str, shard: int, token: str, failure: JobFailure) -> FinishVerdict:
        """End the job: this shard cannot be scored."""
        args = [job_id, shard, token, failure.to_json(), keys.FINISHED_CHANNEL]
        with store_errors():
            answer = self._fail(keys=_job_keys(job_id, self._model), args=args)
        return FinishVerdict(answer.decode())
