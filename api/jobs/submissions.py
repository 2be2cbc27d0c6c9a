"""Turns a request into what the ledger accepts: its model, what of it is to be scored, its shards and doorbells.

Refuses what cannot be served: an unknown model, too many documents, an instruction that the model has no place for, a
model that failed to start. Stores nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from api.pool_monitor import PoolMonitor, StartFailure
from shared.contracts import Document, RerankRequest, WorkClass
from shared.errors import InvalidRequest, ModelUnavailable
from shared.keys import queue_keys
from shared.ledger.job_ledger import Submission
from shared.ledger.job_record import new_job_id
from shared.models import ModelRegistry, ModelSpec
from shared.partial_results import KnownScores, split_known
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader
from shared.sharding import ShardSize, cut

MAX_QUERIES = 1000
"""In one request. Each is a shard at least, however few documents it has."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`wait_seconds`: the longest wait for a result. `job_deadline_seconds`: then an unscored job expires.

    `shard_tokens`: estimated tokens in one shard. `batch_window`: shards of one batch job in the queue at once.
    """

    max_documents: int
    wait_seconds: float
    job_deadline_seconds: float
    shard_tokens: int
    batch_window: int


def unavailable(model: str, failed: StartFailure) -> ModelUnavailable:
    """What a caller is told of a failed start."""
    message = f"model {model!r} failed to start: {failed.reason}"
    return ModelUnavailable(message, param="model", retry_after=failed.retry_after)


class SubmissionBuilder:
    """Prepares submissions; `scores` None: no score is known before it is asked for."""

    def __init__(
        self,
        *,
        pools: PoolMonitor,
        models: ModelRegistry,
        messages: MessageBuilder,
        limits: Limits,
        scores: ScoreReader | None = None,
    ) -> None:
        self.models = models
        self.limits = limits
        self.pools = pools
        self._envelopes = messages
        self._scores = scores

    async def prepare(
        self, request: RerankRequest, dialect: str, owner: str, work_class: WorkClass, idempotency: str | None
    ) -> Submission:
        """A job with a fresh id. Raises ModelNotFound, InvalidRequest, ModelUnavailable."""
        spec = self.models.resolve(request.model)
        self._refuse(request, spec)
        rest = await self._set_apart(request, spec)
        sizes = self._cut(request, spec, rest)
        if sizes:
            self.require_startable(spec.name)
        job_id = new_job_id()
        # Whoever waits gets every worker at once; a job that nobody waits for leaves room for others.
        rung = len(sizes) if work_class is WorkClass.INTERACTIVE else min(len(sizes), self.limits.batch_window)
        queue = queue_keys.queue_name(spec.name, work_class)
        return Submission(
            job_id=job_id,
            request=request,
            model=spec.name,
            dialect=dialect,
            owner=owner,
            work_class=work_class,
            sizes=sizes,
            messages=[self._envelopes.build(queue, job_id, shard) for shard in range(rung)],
            deadline_seconds=self.limits.job_deadline_seconds,
            idempotency=idempotency,
            rest=rest,
        )

    def require_startable(self, model: str) -> None:
        """Raises ModelUnavailable while no start is tried. Afterwards it is work that makes one be tried again."""
        failed = self.pools.start_failure(model)
        if failed is not None and failed.retry_in:
            raise unavailable(model, failed)

    def _refuse(self, request: RerankRequest, spec: ModelSpec) -> None:
        if len(request.documents) > self.limits.max_documents:
            raise InvalidRequest(
                f"documents: at most {self.limits.max_documents} in one request, got {len(request.documents)}",
                param="documents",
            )
        if _has_own_queries(request) and sum(1 for _ in _by_query(request.documents)) > MAX_QUERIES:
            raise InvalidRequest(f"queries: at most {MAX_QUERIES} different ones in one request", param="queries")
        if request.instruction is not None and spec.score_template is None:
            raise InvalidRequest(
                f"instruction: model {spec.name!r} has no score template to put it into", param="instruction"
            )

    async def _set_apart(self, request: RerankRequest, spec: ModelSpec) -> KnownScores | None:
        """What of the request needs no worker; None when all of it does."""
        # Of a listwise model a score depends on all that was asked together; the rest is known by one query's texts.
        if spec.listwise or _has_own_queries(request):
            return None
        texts = [document.text for document in request.documents]
        if self._scores is None or not self.pools.store_reachable:
            return split_known(texts, {}) if len(texts) > 1 else None
        return split_known(texts, await self._scores.read(spec, request, list(dict.fromkeys(texts))))

    def _cut(self, request: RerankRequest, spec: ModelSpec, rest: KnownScores | None) -> list[ShardSize]:
        documents = request.documents if rest is None else rest.scored(request.documents)
        if _has_own_queries(request):
            # A worker asks its engine about one query at a time.
            runs = [(query or "", list(run)) for query, run in _by_query(documents)]
            return [size for query, run in runs for size in self._cut_run(request, spec, query, run)]
        return self._cut_run(request, spec, request.query, documents)

    def _cut_run(
        self, request: RerankRequest, spec: ModelSpec, query: str, documents: Sequence[Document]
    ) -> list[ShardSize]:
        """The sizes of the shards of documents that have the same query."""
        return cut(
            query,
            [document.text for document in documents],
            None if spec.listwise else self.limits.shard_tokens,
            request.max_tokens_per_doc,
            max_tokens_per_query=request.max_tokens_per_query,
            max_chunks_per_doc=request.max_chunks_per_doc,
        )


def _has_own_queries(request: RerankRequest) -> bool:
    """Whether each document has a query of its own; see Document."""
    return bool(request.documents) and request.documents[0].query is not None


def _by_query(documents: Sequence[Document]) -> "groupby[str | None, Document]":
    """Neighbours that have the same query, together."""
    return groupby(documents, key=lambda document: document.query)
