"""Keys of jobs: their records, parts, leases and idempotency keys, and what happens to jobs that end."""

import hashlib

from shared.keys import PREFIX, pool_keys

JOB_ENDED_CHANNEL = f"{PREFIX}job_ended"
"""The common prefix of the channels; the scripts append the names of the processes that wait for a job."""
DEAD_LETTERS = f"{PREFIX}dead_letters"
KNOWN_SCORES_FIELD = b"known_scores"
"""Beside the shard numbers in the hash of a job's documents."""


def job_ended_channel(listener: str) -> str:
    """The channel of one process."""
    return f"{JOB_ENDED_CHANNEL}:{listener}"


def job(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def request(job_id: str) -> str:
    return f"{job(job_id)}:request"


def documents(job_id: str) -> str:
    return f"{job(job_id)}:documents"


def shards(job_id: str) -> str:
    return f"{job(job_id)}:shards"


def results(job_id: str) -> str:
    return f"{job(job_id)}:results"


def lease(job_id: str, shard: int) -> str:
    return f"{job(job_id)}:lease:{shard}"


def owned(owner: str) -> str:
    return f"{PREFIX}jobs:{owner}"


def idempotency(owner: str, key: str) -> str:
    """The caller's key is hashed: it may be long, and may contain private text."""
    return f"{PREFIX}idempotency:{owner}:{hashlib.sha256(key.encode()).hexdigest()}"


def script_keys(job_id: str, model: str, *more: str) -> list[str]:
    """The KEYS of a script that works on one job."""
    return [job(job_id), pool_keys.outstanding(model), pool_keys.deadlines(model), *more]
