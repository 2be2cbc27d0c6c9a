"""The metrics that the API exposes, apart from those of its pools' workers (shared.metrics.work)."""

from shared.metrics.definitions import Definition, counter, gauge, histogram

HTTP_REQUESTS = counter(
    "rerankq_http_requests", "HTTP responses; the route is empty where none matches", "route", "status"
)
HTTP_SECONDS = histogram(
    "rerankq_http_request_duration_seconds", "From the arrival of a request to the start of its response", "route"
)
REQUESTS = counter(
    "rerankq_requests",
    "Rerank requests by outcome: `ok`, `disconnected`, or the code of the error; lines of batches are not counted here",
    "dialect",
    "class",
    "outcome",
)
REQUEST_SECONDS = histogram(
    "rerankq_request_duration_seconds", "From a waiting caller's request to its result, by model", "model"
)
PAIRS = counter("rerankq_requested_pairs", "Pairs of accepted requests", "model", "class")
CACHED_PAIRS = counter("rerankq_cached_pairs", "Pairs whose score was cached, so that no worker was needed", "model")
REFUSALS = counter("rerankq_refusals", "Requests refused because of load or a key's limits, by reason", "reason")
RECONCILED = counter(
    "rerankq_reconciler_actions",
    "What the reconciler did: expired_leases, dead_letters, resent_messages, expired_jobs, discarded_jobs, "
    "repaired_keys",
    "model",
    "action",
)
RECONCILER_ROUND = gauge("rerankq_reconciler_last_round_timestamp_seconds", "When the reconciler last ended a round")
ROUND_TRIPS = counter("rerankq_redis_round_trips", "Commands and pipelines that the API sent to Redis")
BATCH_ROWS = counter("rerankq_batch_rows", "Rows of batches and bulk jobs that have ended: ok or failed", "outcome")

COUNTED: tuple[Definition, ...] = (
    HTTP_REQUESTS,
    HTTP_SECONDS,
    REQUESTS,
    REQUEST_SECONDS,
    PAIRS,
    CACHED_PAIRS,
    REFUSALS,
    RECONCILED,
    RECONCILER_ROUND,
    ROUND_TRIPS,
    BATCH_ROWS,
)
"""Counted in the API's processes."""

POOL_JOBS = gauge("rerankq_pool_jobs", "Unfinished jobs", "model", "class", "state")
POOL_PAIRS = gauge("rerankq_pool_pairs", "Unfinished pairs", "model", "class", "state")
POOL_TOKENS = gauge("rerankq_pool_tokens", "Unfinished tokens, estimated", "model", "class", "state")
POOL_SHARDS = gauge("rerankq_pool_unfinished_shards", "Shards queued or running", "model")
POOL_WORKERS = gauge("rerankq_pool_workers", "Workers by state: starting, ready or draining", "model", "state")
POOL_DESIRED = gauge("rerankq_pool_desired_workers", "Workers that the pool should have", "model")
POOL_OLDEST = gauge("rerankq_pool_oldest_job_seconds", "Age of the oldest unfinished job", "model")
POOL_IDLE = gauge("rerankq_pool_idle_seconds", "Time since a job was submitted or ended", "model")
POOL_RATE = gauge("rerankq_pool_tokens_per_second", "Throughput of a busy worker", "model")
POOL_START = gauge("rerankq_pool_start_seconds", "Time of a worker's last start", "model")
POOL_FAILED_STARTS = gauge("rerankq_pool_failed_starts", "Failed starts since a worker was last ready", "model")
DEAD_LETTERS = gauge("rerankq_dead_letters", "Shards that exceeded their retries, of all models")
BATCHES = gauge("rerankq_unfinished_batches", "Batches and bulk jobs that have not ended")
STORE_MEMORY = gauge("rerankq_redis_memory_bytes", "Memory that Redis uses")
STORE_LIMIT = gauge("rerankq_redis_memory_limit_bytes", "Redis's maxmemory; no sample without a limit")
WEBHOOKS = counter(
    "rerankq_webhook_deliveries", "Outcomes of webhook deliveries: delivered, retried, failed", "outcome"
)

READ: tuple[Definition, ...] = (
    POOL_JOBS,
    POOL_PAIRS,
    POOL_TOKENS,
    POOL_SHARDS,
    POOL_WORKERS,
    POOL_DESIRED,
    POOL_OLDEST,
    POOL_IDLE,
    POOL_RATE,
    POOL_START,
    POOL_FAILED_STARTS,
    DEAD_LETTERS,
    BATCHES,
    STORE_MEMORY,
    STORE_LIMIT,
    WEBHOOKS,
)
"""Read from Redis when Prometheus scrapes: every API process exposes the same values."""
