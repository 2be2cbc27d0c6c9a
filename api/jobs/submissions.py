"""Builds a Submission for the ledger from a request: resolves the model, reads known scores, cuts shards.

Rejects requests that cannot be served: an unknown model, too many documents, an instruction for a model without a
score template, a model that failed to start. Stores nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from api.jobs.admission import Admission
from api.pool_monitor import PoolMonitor, StartFailure
from api.webhooks.subscriptions import Subscriptions
from shared.contracts import Document, NumberedDocument, RerankRequest, Truncation, WorkClass
from shared.errors import InvalidRequest, ModelUnavailable, TooManyDocuments
from shared.keys import queue_keys
from shared.ledger.job_record import new_job_id
from shared.ledger.submission import DEFAULT_OPTIONS, JobOptions, Submission
from shared.models import ModelRegistry, ModelSpec
from shared.owner_limits import OwnerTerms
from shared.partial_results import KnownScores, split_known
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader
from shared.sharding import ShardSize, Windows, estimate_tokens, shard_sizes

MAX_QUERIES = 1000
"""The most runs of documents with the same query in one request. Each run is at least one shard."""
_USUAL_MODEL_TOKENS = 512
"""For models whose entry does not set `max_model_len`. Too small a window overestimates the work."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a submission.

    `max_documents`: the most documents in one request. `wait_seconds`: the longest wait for a result.
    `job_deadline_seconds`: a job that no worker has started by then expires. `shard_tokens`: the size of a shard in
    estimated tokens. `batch_window`: the most shards of one batch job in the queue at once. `max_windows`: the most
    windows of long documents in one request.
    """

    max_documents: int
    wait_seconds: float
    job_deadline_seconds: float
    shard_tokens: int
    batch_window: int
    max_windows: int


@dataclass(frozen=True, slots=True)
class LineJob:
    """The job of one line of a batch. Its owner's limits do not apply to it: the batch has a budget."""

    job_id: str
    batch_id: str
    deadline_seconds: float


def model_unavailable(model: str, failure: StartFailure) -> ModelUnavailable:
    """The error for a model that failed to start."""
    message = f"model {model!r} failed to start: {failure.reason}"
    return ModelUnavailable(message, param="model", retry_after=failure.retry_after)


class SubmissionBuilder:
    """Builds submissions. `scores` None: the score cache is not read. `webhooks` None: jobs report nothing."""

    def __init__(
        self,
        *,
        pools: PoolMonitor,
        models: ModelRegistry,
        messages: MessageBuilder,
        limits: Limits,
        admission: Admission,
        scores: ScoreReader | None = None,
        webhooks: Subscriptions | None = None,
    ) -> None:
        self.models = models
        self.limits = limits
        self.pools = pools
        self._messages = messages
        self.admission = admission
        self._scores = scores
        self._webhooks = webhooks

    async def build(
        self,
        request: RerankRequest,
        dialect: str,
        owner: str,
        work_class: WorkClass,
        idempotency: str | None,
        wait_seconds: float | None = None,
        line: LineJob | None = None,
        options: JobOptions = DEFAULT_OPTIONS,
    ) -> Submission:
        """Build a submission with a new job id, or with that of a batch's line.

        `wait_seconds` is how long its caller is willing to wait, None if it has not said so. Raises ModelNotFound,
        InvalidRequest, ModelUnavailable, or Overloaded when the store is almost full.
        """
        spec = self.models.resolve(request.model)
        self._validate(request, spec)
        if request.truncation is Truncation.NONE:
            request = _with_positions(request)
        known = await self._read_known_scores(request, spec)
        sizes = self._cut_into_shards(request, spec, known)
        if sizes:
            self._require_startable(spec.name)
            self.admission.require_memory()
        job_id = new_job_id() if line is None else line.job_id
        terms = self.admission.terms_of(owner)
        # Interactive jobs enqueue all shards at once; batch jobs enqueue a window.
        enqueued = len(sizes) if work_class is WorkClass.INTERACTIVE else min(len(sizes), self.limits.batch_window)
        queue = queue_keys.queue_name(spec.name, work_class)
        return Submission(
            job_id=job_id,
            request=request,
            model=spec.name,
            dialect=dialect,
            owner=owner,
            work_class=work_class,
            sizes=sizes,
            messages=[self._messages.build(queue, job_id, shard) for shard in range(enqueued)],
            deadline_seconds=self._deadline_seconds(line, options),
            idempotency=idempotency,
            known_scores=known,
            limits=self.admission.pending_limits(spec, work_class, wait_seconds),
            terms=terms if line is None else OwnerTerms(terms.weight),
            batch=None if line is None else line.batch_id,
            result_seconds=options.result_seconds,
            webhooks="" if self._webhooks is None or line else await self._webhooks.of_job(owner, options.webhook),
            execution_seconds=options.execution_seconds,
            kept_seconds=options.kept_seconds,
        )

    def _deadline_seconds(self, line: LineJob | None, options: JobOptions) -> float:
        """The time from acceptance to the deadline. A caller can shorten it, not extend it."""
        if line is not None:
            return line.deadline_seconds
        limits = (options.deadline_seconds, options.kept_seconds)
        return min(*(limit or math.inf for limit in limits), self.limits.job_deadline_seconds)

    def _require_startable(self, model: str) -> None:
        """Raise ModelUnavailable during the pause after a failed start. After it, new jobs trigger the next start."""
        failure = self.pools.start_failure(model)
        if failure is not None and failure.retry_in:
            raise model_unavailable(model, failure)

    def _validate(self, request: RerankRequest, spec: ModelSpec) -> None:
        if len(request.documents) > self.limits.max_documents:
            raise TooManyDocuments(
                f"documents: at most {self.limits.max_documents} in one request, got {len(request.documents)}",
                param="documents",
            )
        if _has_own_queries(request) and sum(1 for _ in _runs_by_query(request.documents)) > MAX_QUERIES:
            raise InvalidRequest(f"queries: at most {MAX_QUERIES} different queries in one request", param="queries")
        if request.instruction is not None and spec.score_template is None:
            raise InvalidRequest(
                f"instruction: model {spec.name!r} has no score template to put it into", param="instruction"
            )

    async def _read_known_scores(self, request: RerankRequest, spec: ModelSpec) -> KnownScores | None:
        """The documents that need no worker: cached scores and repeated texts. None when there are none."""
        # A listwise model scores all documents together, and the cache is read for one query only.
        if spec.listwise or _has_own_queries(request):
            return None
        texts = [document.text for document in request.documents]
        if self._scores is None or not request.use_cache or not self.pools.store_reachable:
            return split_known(texts, {}) if len(texts) > 1 else None
        dtype = self.pools.pool(spec.name).signals.dtype
        return split_known(texts, await self._scores.read(spec, request, list(dict.fromkeys(texts)), dtype=dtype))

    def _cut_into_shards(self, request: RerankRequest, spec: ModelSpec, known: KnownScores | None) -> list[ShardSize]:
        documents = request.documents if known is None else known.documents_to_score(request.documents)
        if _has_own_queries(request):
            # A shard has one query.
            runs = [(query or "", list(run)) for query, run in _runs_by_query(documents)]
        else:
            runs = [(request.query, documents)]
        self._require_few_windows(request, spec, runs)
        return [size for query, run in runs for size in self._cut_run(request, spec, query, run)]

    def _cut_run(
        self, request: RerankRequest, spec: ModelSpec, query: str, documents: Sequence[Document]
    ) -> list[ShardSize]:
        """The sizes of the shards for documents with the same query."""
        return shard_sizes(
            query,
            [document.text for document in documents],
            None if spec.listwise else self.limits.shard_tokens,
            _windows(request, spec, query),
            max_tokens_per_query=request.max_tokens_per_query,
        )

    def _require_few_windows(
        self, request: RerankRequest, spec: ModelSpec, runs: Sequence[tuple[str, Sequence[Document]]]
    ) -> None:
        if request.max_chunks_per_doc == 1:
            return
        count = sum(
            _windows(request, spec, query).count(estimate_tokens(document.text))
            for query, run in runs
            for document in run
        )
        if count > self.limits.max_windows:
            raise InvalidRequest(
                f"max_chunks_per_doc: at most {self.limits.max_windows} windows in one request, got about {count}",
                param="max_chunks_per_doc",
            )


def _windows(request: RerankRequest, spec: ModelSpec, query: str) -> Windows:
    """How the worker divides long documents. The API has no tokenizer, and estimates the model's own window."""
    if request.max_chunks_per_doc == 1:
        return Windows(_least(request.max_tokens_per_doc, request.max_prompt_tokens))
    model_tokens = spec.engine_args.get("max_model_len")
    model_tokens = model_tokens if isinstance(model_tokens, int) else _USUAL_MODEL_TOKENS
    prompt_tokens = _least(model_tokens, request.max_prompt_tokens) or model_tokens
    size = max(1, prompt_tokens - estimate_tokens(query))
    size = _least(size, request.max_tokens_per_doc) or size
    return Windows(size, request.max_chunks_per_doc, request.overlap_tokens)


def _least(*limits: int | None) -> int | None:
    """The lowest of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)


def _with_positions(request: RerankRequest) -> RerankRequest:
    """The request with numbered documents."""
    numbered = [
        NumberedDocument.model_construct(position=position, **dict(document))
        for position, document in enumerate(request.documents)
    ]
    return request.model_copy(update={"documents": numbered})


def _has_own_queries(request: RerankRequest) -> bool:
    """Whether each document has its own query; see Document."""
    return bool(request.documents) and request.documents[0].query is not None


def _runs_by_query(documents: Sequence[Document]) -> "groupby[str | None, Document]":
    """Runs of consecutive documents with the same query."""
    return groupby(documents, key=lambda document: document.query)
