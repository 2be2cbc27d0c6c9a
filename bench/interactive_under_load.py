"""`make bench-interactive`: measures interactive calls on an idle worker and on one saturated with batch work.

One worker has the lexical engine at 100 ms per shard, with a real Redis and real processes. One caller sends requests
one at a time; in the second half, several thousand batch shards are queued throughout.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import redis
import yaml

from infra.local.stack import Options, Stack
from shared.keys import pool_keys

MODEL = "lexical"
SHARD_SECONDS = 0.1
QUERY = {"query": "What is a panda?", "documents": ["hi", "it is a bear", "The giant panda is a bear."]}
TARGET_RATIO = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="interactive calls in each half; default: %(default)s")
    calls = parser.parse_args().calls
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder)) as stack,
        httpx.Client(base_url=stack.url, timeout=60) as client,
        redis.Redis.from_url(stack.redis_url) as store,
    ):
        time_calls(client, 20)
        quiet = time_calls(client, calls)
        submit_backlog(client, seconds=calls * SHARD_SECONDS * 2.5)
        before = backlog(store)
        loaded = time_calls(client, calls)
        after = backlog(store)
    print(f"interactive calls, one at a time, engine {SHARD_SECONDS * 1000:.0f} ms per shard, {calls} calls each")
    print(f"{'':24}{'p50 ms':>10}{'p99 ms':>10}{'worst ms':>10}")
    report("no other work", quiet)
    report("batch backlog", loaded)
    ratio = p99(loaded) / p99(quiet)
    print(f"shards outstanding at the start and the end of the loaded half: {before}, {after}")
    print(f"p99 loaded over unloaded: {ratio:.2f} (target: at most {TARGET_RATIO:g})")
    return 0 if ratio <= TARGET_RATIO and after > 0 else 1


def running(folder: Path) -> Stack:
    """Return a stack that is ready when its context manager is entered and stopped when it is left."""
    models = folder / "models.yaml"
    entry = {"name": MODEL, "engine": "lexical", "engine_args": {"delay_seconds": SHARD_SECONDS}}
    models.write_text(yaml.safe_dump({"models": [entry]}))
    environment = {
        # All requests are the same.
        "RERANKQ_SCORE_CACHE": "false",
        "RERANKQ_MODELS_FILE": str(models),
        "RERANKQ_SHARD_TOKENS": "100",
        "RERANKQ_DRAIN_SECONDS": "0",
        "RERANKQ_LOG_LEVEL": "WARNING",
    }
    return ReadyStack(Options(port=0, environment=environment))


class ReadyStack(Stack):
    """A stack that is ready when it is entered."""

    def __enter__(self) -> "ReadyStack":
        super().__enter__()
        try:
            self.start_redis()
            self.start_service()
            self.wait_ready(60)
        except BaseException:
            self.__exit__()
            raise
        return self


def time_calls(client: httpx.Client, calls: int) -> list[float]:
    """Send calls one at a time. Returns the seconds that each took."""
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        client.post("/v1/rerank", json=QUERY).raise_for_status()
        seconds.append(time.perf_counter() - started)
    return seconds


def submit_backlog(client: httpx.Client, seconds: float) -> None:
    """Submit batch work that occupies all slots of the worker for about `seconds`."""
    documents = [f"document {number} " + "panda " * 50 for number in range(400)]
    body = {"query": "panda", "documents": documents}
    for _ in range(int(seconds / SHARD_SECONDS * 48 / len(documents)) + 1):
        client.post("/v1/rerank", json=body, headers={"Prefer": "respond-async"}).raise_for_status()


def backlog(store: "redis.Redis") -> int:
    return int(store.zcard(pool_keys.outstanding(MODEL)))


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def report(name: str, seconds: list[float]) -> None:
    milliseconds = [value * 1000 for value in (statistics.median(seconds), p99(seconds), max(seconds))]
    print(f"{name:24}" + "".join(f"{value:10.1f}" for value in milliseconds))


if __name__ == "__main__":
    sys.exit(main())
