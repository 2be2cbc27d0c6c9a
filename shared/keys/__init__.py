"""The names of all keys that rerankq uses in Redis, and how long each lives. No other package spells a key.

| key | type | content | lifetime |
|---|---|---|---|
| rerankq:job:ID | hash | the job's record | result lifetime after its end; a ceiling before |
| rerankq:job:ID:request | string | the canonical request without its documents, JSON | as its job |
| rerankq:job:ID:documents | hash | N -> the shard's documents; "known_scores"; JSON | as its job |
| rerankq:job:ID:shards | hash | N:status, N:token, N:crashes ... for each shard (lua/_common.lua) | as its job |
| rerankq:job:ID:results | hash | N -> the shard's scores, JSON | as its job |
| rerankq:job:ID:lease:N | string | the token of the worker that holds the shard | a lease, renewed |
| rerankq:jobs:OWNER | zset | ID -> when it was accepted, ms; all jobs of an owner | its last job's ceiling |
| rerankq:idempotency:OWNER:HASH | string | the job of an Idempotency-Key, and a fingerprint of its body | as its job |
| rerankq:pool:MODEL:outstanding | zset | ID/N -> when to check it, ms; every unfinished shard | until it is done |
| rerankq:pool:MODEL:deadlines | zset | ID -> the job's deadline, ms | until the job ends |
| rerankq:pool:MODEL:jobs:CLASS | zset | ID -> when it was accepted, ms; every unfinished one | until it ends |
| rerankq:pool:MODEL:load | hash | CLASS:pairs ... (lua/_common.lua), ended_ms | permanent |
| rerankq:pool:MODEL:turns:CLASS | zset | OWNER -> virtual time of its next turn (lua/_order.lua) | until idle |
| rerankq:pool:MODEL:order:CLASS:OWNER | zset | ID/N -> position; queued shards | until it is claimed |
| rerankq:pool:MODEL:backlog:CLASS | hash | OWNER -> estimated tokens of its unfinished shards | until they are done |
| rerankq:pool:MODEL:weights | hash | OWNER -> its weight, when it is not 1 | until idle |
| rerankq:pool:MODEL:owner_jobs | hash | OWNER -> its number of unfinished jobs | until idle |
| rerankq:pool:MODEL:claims:WORKER | string | the last shards that a worker claimed, to repeat a lost reply | a lease |
| rerankq:pool:MODEL:workers | hash | worker -> its last heartbeat, JSON | an hour after the last heartbeat |
| rerankq:pool:MODEL:measurements | hash | a worker's start_seconds, tokens_per_second, dtype | 30 days after the last |
| rerankq:pool:MODEL:unpublished | hash | BATCH -> "pairs tokens" of lines that are no jobs yet | until the batch ends |
| rerankq:batch:ID | hash | a batch's record (shared/ledger/batch_record.py) | as its result files |
| rerankq:batch:ID:segments | list | the parts of its output, in order, JSON | as its result files |
| rerankq:batch:ID:runner | string | the token of the process that runs it | a lease, renewed |
| rerankq:batches:KIND:OWNER | zset | ID -> when it was created, ms | as its last batch |
| rerankq:open_batches | zset | ID -> when it was created, ms; every unfinished batch | until it ends |
| rerankq:file:ID | hash | a file's record | the file's lifetime |
| rerankq:files:OWNER | zset | ID -> when it was created, ms | as its last file |
| rerankq:payload:NAME | string | size, time and VERSION of a large file, JSON (api/payloads) | the file's lifetime |
| rerankq:payload_data:VERSION | hash | N -> 256 KiB of it | as its file |
| rerankq:payloads | zset | NAME -> when it expires, Unix seconds | the first write or list after that |
| rerankq:payloads_unfinished | zset | VERSION -> when it grew, Unix seconds | until it is complete or abandoned |
| rerankq:score:DIGEST | string | a pair's raw score | RERANKQ_SCORE_CACHE_SECONDS, see below |
| rerankq:scores | zset | DIGEST -> when its score was written, ms | as long after the last score was written |
| rerankq:dead_letters | list | shards that exceeded their retry budget, newest first, JSON | the newest 1,000 |
| rerankq:reconciler_leader | string | the API process that reconciles | a few seconds, renewed |
| rerankq:sweeper_leader | string | the API process that deletes orphaned payloads | a minute, renewed |
| rerankq:payload_namespace | string | the folder of this deployment in the payload store | permanent |
| rerankq:api_keys | hash | key id -> the API key's record, its secret hashed | until revoked |
| rerankq:webhook_endpoints | hash | OWNER/ID -> a webhook with its secret, JSON | until deleted |
| rerankq:webhook_delivery:ID | hash | one event for one receiver (lua/_webhooks.lua) | 7 days, delivered 1 hour |
| rerankq:webhook_lanes | zset | LANE (a receiver's host) -> when its first delivery is due, ms | until all are sent |
| rerankq:webhook_lane:LANE | zset | DELIVERY -> when it is due, ms | until it is sent or fails |
| rerankq:webhook_pending:OWNER | zset | DELIVERY -> when it was enqueued, ms | until it is sent or fails |
| rerankq:webhook_deliveries:OWNER/ID | zset | DELIVERY -> when its event happened, ms | as its last delivery |
| rerankq:webhook_counts | hash | delivered, retried, failed -> how many so far | permanent |
| rerankq:webhook_leader | string | the API process that sends webhooks | a few seconds, renewed |
| rerankq:rate:OWNER:LIMIT | string | when the requests or pairs accepted so far are used up, ms | until then |
| rerankq:job_ended:PROCESS | channel | ids of ended jobs that it waits for, a small result behind its id | - |
| rerankq:queue:MODEL:CLASS | list | Celery messages (kombu's) | popped |
| rerankq:unacked* | hash, zset | kombu's own bookkeeping of unacknowledged messages | kombu's |
| rerankq:_kombu.binding.* | set | kombu's own bookkeeping of queues | kombu's |

The score cache holds at most RERANKQ_SCORE_CACHE_ENTRIES scores: each write removes the oldest scores over that number,
and expired ones from the zset (store/lua/cache_scores.lua). Nothing scans for them.

Scripts receive a job's first key and its pool's, and derive the others (`job_keys` in store/lua/_common.lua); a test
compares the two lists.
"""

PREFIX = "rerankq:"
"""In front of every key, kombu's included (its `global_keyprefix`)."""
