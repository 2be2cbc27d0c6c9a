"""Builds the objects that the API and the batch runner are made of, from the settings. Starts nothing."""

from dataclasses import dataclass

import redis.asyncio

from api.auth.authenticator import Authenticator
from api.auth.key_file import KeyFile
from api.auth.key_store import KeyStore
from api.jobs.admission import Admission, AdmissionLimits
from api.jobs.completions import CompletionListener
from api.jobs.queue import JobQueue
from api.jobs.service import RerankService
from api.jobs.submissions import Limits, SubmissionBuilder
from api.metrics.counts import ServiceCounts
from api.payloads.base import PayloadStore
from api.payloads.factory import open_payload_store
from api.payloads.names import PayloadNames
from api.pool_monitor import PoolMonitor
from api.settings import ApiSettings
from api.webhooks.addresses import AddressRules, parse_networks
from api.webhooks.endpoints import Endpoints
from api.webhooks.subscriptions import Subscriptions
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.endpoint_ledger import EndpointLedger
from shared.ledger.job_index import JobIndex
from shared.ledger.job_ledger import JobLedger
from shared.ledger.limits import Lifetimes
from shared.ledger.queue_ledger import QueueLedger
from shared.models import ModelRegistry
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader
from shared.store.client import connect_async


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects of one process. `close` releases their connections."""

    client: redis.asyncio.Redis
    ledger: JobLedger
    batches: BatchLedger
    completions: CompletionListener
    pools: PoolMonitor
    messages: MessageBuilder
    authenticator: Authenticator
    submissions: SubmissionBuilder
    service: RerankService
    endpoints: Endpoints
    deliveries: DeliveryLedger
    webhook_rules: AddressRules
    subscriptions: Subscriptions
    queue: JobQueue
    payloads: PayloadStore
    names: PayloadNames
    counts: ServiceCounts

    async def close(self) -> None:
        await self.payloads.close()
        await self.client.aclose()


def build(
    settings: ApiSettings, registry: ModelRegistry, *, keys_required: bool = False, counts: ServiceCounts | None = None
) -> Parts:
    """Build the objects. Connects to nothing. Raises ConfigurationError for an unusable payload store.

    `counts` are the counters of this process; None: new ones, which no metric exposes.
    """
    counts = counts or ServiceCounts()
    counts.prepare(spec.name for spec in registry.specs)
    client = connect_async(settings.redis_url, counts.round_trip)
    ledger = JobLedger(client, Lifetimes(result=settings.result_seconds), counts.reconciled)
    completions = CompletionListener(client, ledger)
    pools = PoolMonitor(client, registry.specs)
    messages = MessageBuilder(make_celery(settings.redis_url))
    file = KeyFile(settings.keys_file) if settings.keys_file else None
    authenticator = Authenticator(KeyStore(client), always_required=keys_required, file=file)
    endpoints = Endpoints(EndpointLedger(client))
    rules = AddressRules(parse_networks(settings.webhook_networks))
    subscriptions = Subscriptions(endpoints, rules)
    submissions = SubmissionBuilder(
        pools=pools,
        models=registry,
        messages=messages,
        limits=_limits(settings),
        admission=Admission(pools, _admission_limits(settings), authenticator.terms_of),
        scores=ScoreReader(client) if settings.score_cache else None,
        webhooks=subscriptions,
    )
    return Parts(
        client=client,
        ledger=ledger,
        batches=BatchLedger(client, [spec.name for spec in registry.specs]),
        completions=completions,
        pools=pools,
        messages=messages,
        authenticator=authenticator,
        submissions=submissions,
        service=RerankService(
            ledger=ledger, index=JobIndex(client), completions=completions, submissions=submissions, counts=counts
        ),
        endpoints=endpoints,
        deliveries=DeliveryLedger(client),
        webhook_rules=rules,
        subscriptions=subscriptions,
        queue=JobQueue(ledger, QueueLedger(client), messages, deadline_seconds=settings.job_deadline_seconds),
        payloads=open_payload_store(settings.payloads, client),
        names=PayloadNames(client),
        counts=counts,
    )


def _limits(settings: ApiSettings) -> Limits:
    return Limits(
        max_documents=settings.max_documents,
        wait_seconds=settings.wait_seconds,
        job_deadline_seconds=settings.job_deadline_seconds,
        shard_tokens=settings.shard_tokens,
        batch_window=settings.batch_window,
        max_windows=settings.max_windows,
    )


def _admission_limits(settings: ApiSettings) -> AdmissionLimits:
    waiting = settings.per_process(settings.max_waiting)
    return AdmissionLimits(settings.max_pending_tokens, settings.max_pending_jobs, waiting)
