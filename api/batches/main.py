"""`python -m api batches`: runs the unfinished batches of the deployment until it receives a signal to stop."""

import asyncio
import gc
import os
import signal

from prometheus_client import CollectorRegistry

from api import composition
from api.background_tasks import cancel_and_wait
from api.batches.line_runner import LineRunner
from api.batches.runner import Runner, RunnerLimits
from api.dialects.registry import family
from api.metrics.counts import ServiceCounts
from api.metrics.shared_files import join_as_runner
from api.settings import ApiSettings
from shared.metrics.port import expose
from shared.models import ModelRegistry, load_models
from shared.tracing import set_up_tracing, shut_down_tracing

NICENESS = 10


async def run_batches(settings: ApiSettings, until_idle_seconds: float | None = None) -> int:
    """Run batches until SIGTERM or SIGINT, or until there was none for `until_idle_seconds`. Returns the exit status.

    Raises ConfigurationError.
    """
    registry = load_models(settings.models_file)
    # Interactive calls come first, also where their processes share the processor with this one.
    os.nice(NICENESS)
    counted = CollectorRegistry()
    if not join_as_runner() and settings.metrics_port:
        expose(counted, settings.metrics_port)
    set_up_tracing(settings.tracing, "batches")
    parts = composition.build(settings, registry, counts=ServiceCounts(counted))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await parts.pools.refresh()
    gc.freeze()
    runner = asyncio.create_task(make_runner(parts, settings, registry).run(until_idle_seconds))
    background = [asyncio.create_task(part.run()) for part in (parts.completions, parts.pools, parts.authenticator)]
    stopping = asyncio.create_task(stop.wait())
    tasks = [runner, *background]
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # A background task never ends by itself: raise its error.
            task.result()
    finally:
        stopping.cancel()
        await cancel_and_wait(tasks)
        await parts.close()
        shut_down_tracing()
    return 0


def make_runner(parts: composition.Parts, settings: ApiSettings, registry: ModelRegistry) -> Runner:
    """A runner of the batches of this deployment, made of these parts."""
    return Runner(
        batches=parts.batches,
        jobs=parts.ledger,
        lines=LineRunner(parts.ledger, parts.completions, parts.submissions, parts.service),
        pools=parts.pools,
        payloads=parts.payloads,
        names=parts.names,
        models=registry,
        root=family(settings.root_dialect),
        limits=RunnerLimits(settings.max_body_bytes, settings.max_batch_lines, settings.shard_tokens),
        on_rows=parts.counts.batch_rows,
    )
