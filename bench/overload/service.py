"""The service under test: one API, one worker with the lexical engine, and a delay that sets its capacity.

Also what the cases read from it: a measured throughput, the memory of the API, API keys.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis.asyncio
import yaml

from api.auth.key_store import KeyStore, Scope
from bench.interactive_under_load import ReadyStack
from bench.overload.caller import Caller, open_loop
from infra.local.stack import Options

MODEL = "lexical"
SHARD_SECONDS = 0.1
CONCURRENCY = 4
CAPACITY = CONCURRENCY / SHARD_SECONDS
"""Requests of one shard in a second."""


@dataclass(frozen=True, slots=True)
class Service:
    """A ready service whose throughput has been measured."""

    stack: ReadyStack
    caller: Caller

    def api_megabytes(self) -> float:
        """The resident memory of the API process."""
        return psutil.Process(self.stack.child("api").pid).memory_info().rss / 2**20

    async def create_keys(self, *names: str) -> list[str]:
        """Create API keys; from then on every request needs one."""
        async with redis.asyncio.Redis.from_url(self.stack.redis_url) as client:
            keys = [await KeyStore(client).create(name, scopes=list(Scope)) for name in names]
        # Every API process reads the keys again within this time.
        await asyncio.sleep(2.5)
        return keys


@asynccontextmanager
async def running(warm_up_seconds: float, max_wait_seconds: float = 20.0) -> AsyncIterator[Service]:
    """Start the service and measure its throughput under 0.8 of its capacity. Stops it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models.yaml"
        entry = {
            "name": MODEL,
            "engine": "lexical",
            "engine_args": {"delay_seconds": SHARD_SECONDS},
            "pool": {"max_wait_seconds": max_wait_seconds},
        }
        models.write_text(yaml.safe_dump({"models": [entry]}))
        environment = {
            "RERANKQ_MODELS_FILE": str(models),
            "RERANKQ_CONCURRENCY": str(CONCURRENCY),
            "RERANKQ_SHARD_TOKENS": "200",
            "RERANKQ_DRAIN_SECONDS": "0",
            "RERANKQ_SCORE_CACHE": "false",
            "RERANKQ_LOG_LEVEL": "WARNING",
        }
        with ReadyStack(Options(port=0, environment=environment)) as stack:
            caller = Caller(stack.port)
            try:
                await open_loop(0.8 * CAPACITY, warm_up_seconds, caller.rerank)
                await _wait_for_throughput(caller)
                yield Service(stack, caller)
            finally:
                caller.close()


async def _wait_for_throughput(caller: Caller) -> None:
    deadline = time.monotonic() + 15
    while (await caller.call("GET", f"/v1/pools/{MODEL}")).body.get("tokens_per_second") is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the worker has not measured its throughput")
        await asyncio.sleep(0.5)
