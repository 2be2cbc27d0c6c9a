"""The metrics that workers count. A worker exposes them as `rerankq_worker_...`, for itself.

It also adds them to its pool's totals in Redis, which the API exposes as `rerankq_pool_...` with the label `model`. So
a pool is seen without scraping its workers, and its counts do not end with them.
"""

from shared.metrics.definitions import Definition, counter, histogram, powers_of_two

WORKER_PREFIX, POOL_PREFIX = "rerankq_worker_", "rerankq_pool_"

_COUNTS = powers_of_two(0, 10)
_TOKENS = powers_of_two(4, 17)

QUEUE_WAIT = histogram("queue_wait_seconds", "Time of a shard from its submission to its claim", "class")
INFERENCE = histogram("inference_seconds", "Time of a shard in the engine, with tokenization", "class")
SHARDS = counter(
    "shards", "Shards by how scoring them ended: scored, failed, retry, released, discarded", "class", "outcome"
)
REJECTED = counter(
    "rejected_reports", "Results that the ledger did not accept: the lease was lost or the job had ended"
)
PAIRS = counter("scored_pairs", "Pairs that were scored", "class")
PROMPT_TOKENS = counter("prompt_tokens", "Tokens of scored prompts, with those found in the prefix cache", "class")
TRUNCATED = counter("truncated_pairs", "Pairs of which a text was cut")
STEP_SECONDS = histogram("engine_step_seconds", "Time of one step of the engine", buckets=powers_of_two(-12, 4))
STEP_PROMPTS = histogram("engine_step_prompts", "Prompts that one step completed", buckets=_COUNTS)
STEP_TOKENS = histogram("engine_step_tokens", "Tokens of the prompts that one step completed", buckets=_TOKENS)
PREFIX_TOKENS = counter("prefix_cache_tokens", "Tokens of prompts that the prefix cache already had")
EMBEDDINGS = counter("embedding_cache_lookups", "Texts looked up in the embedding cache: hit or miss", "result")
STARTS = counter("starts", "Workers that became ready")
START_SECONDS = histogram(
    "start_stage_seconds", "Time of one stage of a worker's start", "stage", buckets=powers_of_two(-6, 9)
)

WORK_METRICS: tuple[Definition, ...] = (
    QUEUE_WAIT,
    INFERENCE,
    SHARDS,
    REJECTED,
    PAIRS,
    PROMPT_TOKENS,
    TRUNCATED,
    STEP_SECONDS,
    STEP_PROMPTS,
    STEP_TOKENS,
    PREFIX_TOKENS,
    EMBEDDINGS,
    STARTS,
    START_SECONDS,
)
