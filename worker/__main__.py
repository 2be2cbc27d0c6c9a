"""`python -m worker`: one process, one model, one engine.

The engine is built here, before Celery starts: an exception inside one of Celery's signal handlers is swallowed, and
the worker would go on without an engine.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import time

from celery.signals import setup_logging

from shared.celery_app import make_celery, pool_queues
from shared.errors import RerankqError
from shared.heartbeats import HeartbeatWriter
from shared.ledger import WorkerLedger
from shared.models import ModelSpec, load_models
from shared.redis_client import connect
from worker import tasks
from worker.engines.base import EngineStartError
from worker.engines.registry import ENGINES, build_engine
from worker.executor import Executor
from worker.health import Heart
from worker.settings import WorkerSettings

logger = logging.getLogger("worker")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Score rerank jobs for one model.")
    parser.add_argument("--model", help="a name from the models file; default: its first one")
    parser.add_argument("--engine", choices=ENGINES, help="overrides the engine of the model's entry")
    parser.add_argument("--redis-url", help="default: REDIS_URL, or redis://127.0.0.1:6379/0")
    parser.add_argument("--models-file", help="default: infra/models.yaml")
    parser.add_argument("--concurrency", type=int, help="shards in the engine at once; default: 64")
    return parser.parse_args(arguments)


def choose_model(settings: WorkerSettings) -> ModelSpec:
    """The entry this worker serves. Raises RerankqError."""
    spec = load_models(settings.models_file).resolve(settings.model)
    return spec.model_copy(update={"engine": settings.engine}) if settings.engine else spec


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        settings = WorkerSettings.from_environment(**vars(options))
        spec = choose_model(settings)
    except RerankqError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Connected, and empty: Celery leaves logging as it is.
    setup_logging.connect(_keep_logging)
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    return serve(settings, spec)


def _keep_logging(**_: object) -> None:
    pass


def serve(settings: WorkerSettings, spec: ModelSpec) -> int:
    """Load the model, then take work until told to stop. Answers the exit status."""
    worker = f"{socket.gethostname()}-{os.getpid()}"
    client = connect(settings.redis_url)
    heart = Heart(HeartbeatWriter(client, spec.name, worker))
    # Until Celery has its own handlers: a worker that is stopped while it loads ends like any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    heart.start()
    started = time.monotonic()
    try:
        engine = build_engine(spec)
    except (EngineStartError, RerankqError) as error:
        logger.error("%s", error)
        heart.fail(str(error))
        return 1
    except BaseException:
        heart.leave()
        raise
    try:
        app = make_celery(settings.redis_url)
        app.conf.task_queues = pool_queues(spec.name)
        tasks.register(app, Executor(WorkerLedger(client, spec.name), engine, worker))
        celery_worker = app.Worker(
            hostname=f"worker@{worker}",
            concurrency=settings.concurrency,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        heart.ready()
        seconds = time.monotonic() - started
        logger.info("ready: model %s on engine %s, imported and loaded in %.1f s", spec.name, spec.engine, seconds)
        celery_worker.start()
        return int(celery_worker.exitcode or 0)
    finally:
        heart.leave()
        engine.close()
        client.close()


if __name__ == "__main__":
    sys.exit(main())
