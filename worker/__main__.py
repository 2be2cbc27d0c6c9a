"""`python -m worker` runs a worker for one model; `dead-letters` manages failed shards, `quantize` converts a model.

The engine is built here, before Celery starts: Celery swallows exceptions in its signal handlers, and the worker would
continue without an engine.
"""

import argparse
import logging
import os
import signal
import sys
import time
from functools import partial
from types import FrameType
from typing import NoReturn

import redis
from celery.signals import setup_logging, worker_ready

from shared.errors import RerankqError
from shared.ledger.verdicts import FinishVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.logs import set_up_logging
from shared.metrics.pool_totals import PoolTotals
from shared.metrics.port import expose
from shared.models import ModelSpec, load_models
from shared.pools.heartbeats import HeartbeatWriter, worker_name
from shared.queue.celery_app import make_celery, pool_queues
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreWriter
from shared.store.client import connect
from shared.tracing import set_up_tracing, shut_down_tracing
from worker import dead_letters, quantization
from worker.consumer import task
from worker.consumer.kombu_patches import (
    discard_foreign_messages,
    reconnect_when_refused,
    use_constant_retry,
)
from worker.consumer.message_renewer import MessageRenewer
from worker.consumer.queue_order import InteractiveFirst
from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.drain import Drain
from worker.dispatch.executor import Executor, ShardReport
from worker.dispatch.leases import LeaseKeeper
from worker.engines.base import EngineStartError, ScoringEngine
from worker.engines.registry import ENGINES, build_engine, import_engine
from worker.metrics import TotalsPusher, WorkerMetrics
from worker.process.health import HeartbeatThread
from worker.process.startup import StartTimer, deferred_gc, prefetch_weights
from worker.settings import WorkerSettings

logger = logging.getLogger("worker")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Score rerank jobs for one model.")
    parser.add_argument("--model", help="a name from the models file; default: its first one")
    parser.add_argument("--engine", choices=ENGINES, help="overrides the engine of the model's entry")
    parser.add_argument("--redis-url", help="default: REDIS_URL, or redis://127.0.0.1:6379/0")
    parser.add_argument("--models-file", help="default: infra/models.yaml")
    parser.add_argument("--concurrency", type=int, help="shards in the engine at once; default: 64")
    parser.set_defaults(command="work")
    commands = parser.add_subparsers(metavar="COMMAND")
    dead_letters_parser = commands.add_parser(
        "dead-letters", help="list, show or retry shards that exceeded their retry budget"
    )
    dead_letters_parser.set_defaults(command="dead-letters")
    dead_letters.add_arguments(dead_letters_parser)
    quantize_parser = commands.add_parser("quantize", help="write a copy of a model with 8-bit weights, for CPUs")
    quantize_parser.set_defaults(command="quantize")
    quantization.add_arguments(quantize_parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    flags = {name: getattr(options, name) for name in ("model", "engine", "redis_url", "models_file", "concurrency")}
    try:
        if options.command == "quantize":
            return quantization.main(options)
        settings = WorkerSettings.from_environment(**flags)
        if options.command == "dead-letters":
            return dead_letters.main(options, settings)
        spec = choose_model(settings)
    except RerankqError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    set_up_logging(settings.log_level, settings.log_form, process="worker", worker=worker_name(), model=spec.name)
    try:
        set_up_tracing(settings.tracing, "worker", **{"rerankq.worker": worker_name()})
    except RerankqError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    # Celery configures logging unless a handler of this signal is connected.
    setup_logging.connect(_keep_logging)
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    return serve(settings, spec)


def choose_model(settings: WorkerSettings) -> ModelSpec:
    """The entry of the models file that this worker serves. Raises RerankqError."""
    spec = load_models(settings.models_file).resolve(settings.model)
    return spec.model_copy(update={"engine": settings.engine}) if settings.engine else spec


def _keep_logging(**_: object) -> None:
    pass


def serve(settings: WorkerSettings, spec: ModelSpec) -> int:
    """Load the model, then work until stopped. Returns the exit status."""
    stages = StartTimer()
    prefetch_weights(spec)
    worker = worker_name()
    client = connect(settings.redis_url)
    metrics = WorkerMetrics()
    heartbeat = HeartbeatThread(
        HeartbeatWriter(client, spec.name, worker, started_at=time.time() - stages.age),
        TotalsPusher(PoolTotals(client, spec.name), metrics.registry).push,
    )
    stopped: list[int] = []

    def stop_early(number: int, _frame: FrameType | None) -> None:
        # A library may catch the SystemExit; therefore the list is checked after the load.
        stopped.append(number)
        sys.exit(0)

    # Until Celery installs its handlers: a stop during the load also ends with status 0.
    signal.signal(signal.SIGTERM, stop_early)
    heartbeat.start()
    try:
        with deferred_gc():
            import_engine(spec.engine)
            stages.mark("import")
        with deferred_gc():
            engine = build_engine(spec, stages.mark)
    except (EngineStartError, RerankqError) as error:
        logger.error("%s", error)
        heartbeat.fail(str(error))
        return 1
    except BaseException:
        heartbeat.leave()
        raise
    try:
        return 0 if stopped else work(settings, spec, engine, client, heartbeat, worker, stages, metrics)
    finally:
        heartbeat.leave()
        client.close()


def work(
    settings: WorkerSettings,
    spec: ModelSpec,
    engine: ScoringEngine,
    client: redis.Redis,
    heartbeat: HeartbeatThread,
    worker: str,
    stages: StartTimer,
    metrics: WorkerMetrics,
) -> int:
    """Work until stopped. Returns the exit status."""
    app = make_celery(settings.redis_url)
    app.conf.task_queues = pool_queues(spec.name)
    app.conf.broker_transport_options |= {"queue_order_strategy": InteractiveFirst}
    messages = MessageBuilder(app)
    use_constant_retry(app)
    reconnect_when_refused()
    discard_foreign_messages(messages)

    ledger = WorkerLedger(client, spec.name, messages, batch_share=settings.batch_share)
    leases = LeaseKeeper(ledger)
    executor = Executor(engine, settings.concurrency, heartbeat.start_ms)
    heartbeat.dtype = engine.dtype
    writer = ScoreWriter(
        client,
        spec,
        dtype=engine.dtype,
        seconds=settings.score_cache_seconds,
        entries=settings.score_cache_entries,
    )
    dispatcher = Dispatcher(
        ledger,
        executor,
        leases,
        worker,
        concurrency=settings.concurrency,
        reserved=settings.reserved,
        cache_scores=writer.write_all if settings.score_cache else None,
        throughput=heartbeat.throughput,
        on_report=partial(_report, metrics, spec.name),
    )
    drain = Drain(dispatcher, leases, settings.drain_seconds, on_begin=heartbeat.drain)
    executor.on_engine_death = drain.on_engine_death
    task.register(app, dispatcher)
    metrics.watch(engine)
    if settings.metrics_port:
        expose(metrics.registry, settings.metrics_port)

    celery_worker = app.Worker(
        hostname=f"worker@{worker}",
        # One task at a time: the dispatcher, which claims the other shards itself.
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )

    def begin(**_: object) -> None:
        # Celery sets its own signal handlers when it starts; replace them afterwards.
        drain.install()
        heartbeat.ready()
        stages.mark("connect")
        metrics.started(stages.stages)
        logger.info("ready", extra={"engine": spec.engine, "after": stages})

    worker_ready.connect(begin, weak=False)
    renewer = MessageRenewer(client)
    leases.start()
    renewer.start()
    try:
        celery_worker.start()
    finally:
        renewer.stop()
        leases.stop()
        dispatcher.finish()
        shut_down_tracing()
    return drain.exit_status or int(celery_worker.exitcode or 0)


def _report(metrics: WorkerMetrics, model: str, report: ShardReport, verdict: FinishVerdict) -> None:
    """Count a shard's result, and record its spans if it is traced."""
    metrics.shard_reported(report, verdict)
    if report.trace is not None:
        scores = report.scores
        pairs, tokens = (len(scores.scores), scores.prompt_tokens) if scores else (0, 0)
        outcome = report.outcome if verdict is FinishVerdict.ACCEPTED else verdict
        report.trace.record(model, report.work_class, outcome, pairs, tokens)


def end(arguments: list[str] | None = None) -> NoReturn:
    """Run `main`, then exit without the cleanup of Python and vLLM, which takes three seconds."""
    try:
        status = main(arguments)
    except SystemExit as early:
        status = early.code if isinstance(early.code, int) else int(early.code is not None)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    end()
