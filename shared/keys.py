"""Every name that rerankq uses in Redis, and how long each lives. No other file spells a key.

| key | type | what | lives |
|---|---|---|---|
| rerankq:job:ID | hash | the job's record | result lifetime after its end; a ceiling before |
| rerankq:job:ID:request | string | the canonical request, JSON | as its job |
| rerankq:job:ID:shards | hash | N:state, N:token, N:lease_ms, N:attempts for each shard | as its job |
| rerankq:job:ID:results | hash | N -> the shard's scores, JSON | as its job |
| rerankq:pool:MODEL:outstanding | zset | ID/N -> submitted, ms; queued and leased shards | until the shard is done |
| rerankq:pool:MODEL:workers | hash | worker -> its last heartbeat, JSON | an hour after the last heartbeat |
| rerankq:keys | hash | key id -> the API key's record, its secret hashed | until revoked |
| rerankq:finished | channel | ids of jobs that reached a final state | - |
| rerankq:queue:MODEL:CLASS | list | Celery messages, the doorbells (kombu's) | popped |
| rerankq:unacked* | hash, zset | kombu's own bookkeeping of messages in work | kombu's |
| rerankq:_kombu.binding.* | set | kombu's own bookkeeping of queues | kombu's |
"""

from shared.contracts import WorkClass

PREFIX = "rerankq:"
"""In front of every key, kombu's included (its `global_keyprefix`)."""

FINISHED_CHANNEL = f"{PREFIX}finished"
API_KEYS = f"{PREFIX}keys"


def job(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def request(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}:request"


def shards(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}:shards"


def results(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}:results"


def outstanding(model: str) -> str:
    return f"{PREFIX}pool:{model}:outstanding"


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
