"""`python -m worker.autoscaler`: starts workers on this machine when work arrives, and stops them when they are idle.

The first SIGTERM or SIGINT stops every worker after its current work; the second one kills them.
"""

import argparse
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.errors import RerankqError
from shared.logs import resolve_form, set_up_logging
from shared.metrics.port import expose
from shared.models import MAX_WORKERS, ModelSpec, load_models
from shared.store.client import connect
from worker.autoscaler.launchers import Launcher, LaunchOptions, LocalLauncher, ObserveOnlyLauncher, gpus_per_worker
from worker.autoscaler.loop import Autoscaler
from worker.autoscaler.metrics import AutoscalerMetrics
from worker.autoscaler.settings import AutoscalerSettings

ROUND_SECONDS = 0.1
"""Pause between rounds. A request that needs a new worker waits half of it on average; a round costs 0.5 ms of CPU."""
LOGGER = "autoscaler"
"""The name of the logger for messages that operators read, for example "1 request waits: starting a worker"."""
logger = logging.getLogger(LOGGER)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m worker.autoscaler",
        description="Start workers when there is work, and stop them when there is none.",
        epilog="Each model's `pool` in the models file sets how many workers run, and when.",
    )
    parser.add_argument("--model", help="serve only this model of the models file; default: all models")
    parser.add_argument("--redis-url", help="default: REDIS_URL, or redis://127.0.0.1:6379/0")
    parser.add_argument("--models-file", help="default: infra/models.yaml")
    parser.add_argument(
        "--capacity", type=int, help="maximum number of workers on this machine; default: as many as its GPUs allow"
    )
    parser.add_argument("--launcher", choices=("processes", "none"), help="none: only log what would be done")
    parser.add_argument(
        "--standby", action="store_true", default=None, help="keep a process ready that has imported the engine"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    names = ("model", "redis_url", "models_file", "capacity", "launcher", "standby")
    try:
        settings = AutoscalerSettings.from_environment(**{name: getattr(options, name) for name in names})
        registry = load_models(settings.models_file)
        specs = registry.specs if settings.model is None else [registry.resolve(settings.model)]
    except RerankqError as error:
        print(f"autoscaler: {error}", file=sys.stderr)
        return 2
    set_up_logging(settings.log_level, settings.log_form, process="autoscaler")
    return run(settings, specs)


def run(settings: AutoscalerSettings, specs: Sequence[ModelSpec]) -> int:
    """Scale the pools until a signal arrives, then stop every worker. Returns the exit status."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    devices = visible_devices(os.environ)
    client = connect(settings.redis_url)
    metrics = AutoscalerMetrics()
    if settings.metrics_port:
        expose(metrics.registry, settings.metrics_port)
    autoscaler = Autoscaler(
        client,
        specs,
        make_launcher(settings, specs, devices),
        logger.info,
        capacity=settings.capacity or len(devices) // max(map(gpus_per_worker, specs)) or MAX_WORKERS,
        start_seconds=settings.start_seconds,
        drain_seconds=settings.drain_seconds,
        metrics=metrics,
    )
    logging.getLogger(__name__).info("watching %s", ", ".join(spec.name for spec in specs))
    while not received:
        autoscaler.round()
        time.sleep(ROUND_SECONDS)
    autoscaler.close(forced=lambda: len(received) > 1)
    client.close()
    return 0


def make_launcher(settings: AutoscalerSettings, specs: Sequence[ModelSpec], devices: Sequence[str]) -> Launcher:
    if settings.launcher == "none":
        return ObserveOnlyLauncher()
    from_standby = [spec for spec in specs if settings.standby or spec.pool.standby]
    options = LaunchOptions(
        environment=os.environ
        | {
            "REDIS_URL": settings.redis_url,
            "RERANKQ_MODELS_FILE": str(settings.models_file.resolve()),
            # The workers' output is a pipe, which this process prints.
            "RERANKQ_LOG_FORM": resolve_form(settings.log_form),
        },
        devices=devices,
        standby_models=frozenset(spec.name for spec in from_standby),
        standby_engines=sorted({settings.engine or spec.engine for spec in from_standby}),
    )
    return LocalLauncher(options, logger.info)


def visible_devices(environment: Mapping[str, str], folder: Path = Path("/dev")) -> list[str]:
    """The GPUs that workers may use, each in the notation of CUDA_VISIBLE_DEVICES."""
    if (chosen := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    found = [match[1] for path in folder.glob("nvidia*") if (match := re.fullmatch(r"nvidia(\d+)", path.name))]
    return [str(number) for number in sorted(map(int, found))]


if __name__ == "__main__":
    sys.exit(main())
