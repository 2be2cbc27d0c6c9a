"""Every name that rerankq uses in Redis, and how long each lives. No other file spells a key.

| key | type | what | lives |
|---|---|---|---|
| rerankq:job:ID | hash | the job's record | result lifetime after its end; a ceiling before |
| rerankq:job:ID:request | string | the canonical request without its documents, JSON | as its job |
| rerankq:job:ID:documents | hash | N -> the shard's documents, "rest" -> those of no shard, JSON | as its job |
| rerankq:job:ID:shards | hash | N:state, N:token, N:crashes ... for each shard, see lua/_common.lua | as its job |
| rerankq:job:ID:results | hash | N -> the shard's scores, JSON | as its job |
| rerankq:job:ID:lease:N | string | the token of the worker that holds the shard | a lease, renewed |
| rerankq:idempotency:OWNER:HASH | string | the job that an Idempotency-Key stands for, and of what body | as its job |
| rerankq:pool:MODEL:outstanding | zset | ID/N -> when to look after it, ms; every shard not done | until it is done |
| rerankq:pool:MODEL:deadlines | zset | ID -> the job's deadline, ms | until the job ends |
| rerankq:pool:MODEL:jobs:CLASS | zset | ID -> when the job came, ms; every job not ended | until the job ends |
| rerankq:pool:MODEL:load | hash | CLASS:pairs ... (see lua/_common.lua), ended_ms | for good: it is small |
| rerankq:pool:MODEL:workers | hash | worker -> its last heartbeat, JSON | an hour after the last heartbeat |
| rerankq:pool:MODEL:measured | hash | a worker's start_seconds, tokens_per_second | 30 days after the last of either |
| rerankq:score:DIGEST | string | a pair's score as a model gave it | RERANKQ_SCORE_CACHE_SECONDS, see below |
| rerankq:scores | zset | DIGEST -> when its score was written, ms | as long after the last score was written |
| rerankq:dead | list | shards that failed over their budget, newest first, JSON | the newest 1,000 |
| rerankq:reconciler | string | the API process that reconciles | a few seconds, renewed |
| rerankq:keys | hash | key id -> the API key's record, its secret hashed | until revoked |
| rerankq:finished | channel | ids of jobs that ended, a small result behind its id | - |
| rerankq:queue:MODEL:CLASS | list | Celery messages, the doorbells (kombu's) | popped |
| rerankq:unacked* | hash, zset | kombu's own bookkeeping of messages in work | kombu's |
| rerankq:_kombu.binding.* | set | kombu's own bookkeeping of queues | kombu's |

Of known scores there are RERANKQ_SCORE_CACHE_ENTRIES at most: whoever writes some drops the oldest over that number
with their keys, and what has run out from the zset (lua/remember.lua). Nothing ever scans for them.

The scripts get a job's first key and its pool's, and make the others of these themselves (`job_keys` in
lua/_common.lua); a test holds the two lists equal.
"""

import hashlib

from shared.contracts import WorkClass

PREFIX = "rerankq:"
"""In front of every key, kombu's included (its `global_keyprefix`)."""

FINISHED_CHANNEL = f"{PREFIX}finished"
API_KEYS = f"{PREFIX}keys"
DEAD = f"{PREFIX}dead"
RECONCILER = f"{PREFIX}reconciler"
SCORES = f"{PREFIX}scores"
REST_FIELD = b"rest"
"""Beside the shards' numbers in the hash of a job's documents."""
KOMBU = {
    f"{PREFIX}unacked": "hash",
    f"{PREFIX}unacked_index": "zset",
    f"{PREFIX}_kombu.binding.celery": "set",
    f"{PREFIX}_kombu.binding_permanent.celery": "set",
    f"{PREFIX}_kombu.binding_deadlines": "zset",
}
"""kombu's own, and of which kind they are."""
UNACKED_INDEX = f"{PREFIX}unacked_index"
"""kombu's: when each message in work was delivered."""


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


def idempotency(owner: str, key: str) -> str:
    """The caller's key is hashed: it may be long, and it may say more than a name of ours should."""
    return f"{PREFIX}idempotency:{owner}:{hashlib.sha256(key.encode()).hexdigest()}"


def score(digest: str) -> str:
    """A known score; the empty digest gives the start of every such key."""
    return f"{PREFIX}score:{digest}"


def outstanding(model: str) -> str:
    return f"{PREFIX}pool:{model}:outstanding"


def deadlines(model: str) -> str:
    return f"{PREFIX}pool:{model}:deadlines"


def jobs(model: str, work_class: WorkClass) -> str:
    return f"{PREFIX}pool:{model}:jobs:{work_class}"


def load(model: str) -> str:
    return f"{PREFIX}pool:{model}:load"


def measured(model: str) -> str:
    return f"{PREFIX}pool:{model}:measured"


def workers(model: str) -> str:
    return f"{PREFIX}pool:{model}:workers"


def queue_name(model: str, work_class: WorkClass) -> str:
    """The queue as Celery names it: without the prefix, which kombu puts in front itself."""
    return f"queue:{model}:{work_class}"


def work_class_of(name: str) -> WorkClass:
    """The class whose work a queue carries."""
    return WorkClass(name.rpartition(":")[2])


def queue(model: str, work_class: WorkClass) -> str:
    """The queue as Redis sees it."""
    return PREFIX + queue_name(model, work_class)
