"""`make bench-ab`: what a change or a setting costs a call: two services at once, called in turn in short blocks.

The speed of a shared machine drifts by tens of percent within a minute, more than most changes cost. Here both services
live through the same drift. One is this checkout; the other is another checkout (`--tree`), or this one with other
variables (`--set`). The lexical engine scores, so that the service's own work is what is measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.local.stack import Options, Stack

BLOCK = 150
PARTS = ("api", "worker-1", "redis")
_WARM_UP = 300
_WORDS = "word " * 30


@dataclass(slots=True)
class Side:
    """One service: the median of each block in seconds, and the processor time of its processes."""

    name: str
    url: str
    pids: dict[str, int]
    medians: list[float] = field(default_factory=list)
    processor: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    calls: int = 0

    def block(self, client: httpx.Client, count: int = BLOCK) -> None:
        """Make so many calls one after another, each with a document of its own."""
        before = {part: _seconds(pid) for part, pid in self.pids.items()}
        times = []
        for number in range(count):
            body = {"query": "what is it", "documents": [f"document {self.calls + number} {_WORDS}"]}
            started = time.perf_counter()
            client.post(f"{self.url}/v1/rerank", json=body).raise_for_status()
            times.append(time.perf_counter() - started)
        self.calls += count
        self.medians.append(statistics.median(times))
        for part, pid in self.pids.items():
            self.processor[part] += _seconds(pid) - before[part]

    def row(self) -> str:
        """A row of the table: the median call in ms, and µs of processor time a call."""
        costs = " | ".join(f"{self.processor[part] / self.calls * 1e6:.0f}" for part in PARTS)
        return f"| {self.name} | {statistics.median(self.medians) * 1000:.2f} | {costs} |"


def _seconds(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def serve(variables: dict[str, str]) -> None:
    """Run a service until standard input ends; first print where it is."""
    environment = {"RERANKQ_SCORE_CACHE": "false", "RERANKQ_LOG_LEVEL": "WARNING"} | variables
    with Stack(Options(port=0, engine="lexical", environment=environment)) as stack:
        stack.start_redis()
        stack.start_service()
        stack.wait_ready(60)
        found = {"url": stack.url, "pids": {part: stack.child(part).pid for part in PARTS}}
        print(json.dumps(found), flush=True)
        sys.stdin.read()


def start(stack: ExitStack, name: str, tree: Path, variables: dict[str, str]) -> Side:
    """Start a service from a checkout, as a process that ends with the block."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", json.dumps(variables)]
    process = stack.enter_context(
        subprocess.Popen(
            command,
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return Side(name, found["url"], found["pids"])


def compare(sides: list[Side], blocks: int) -> float:
    """Call both in turn. Returns how many times as long a call takes on the second side, the median of all blocks."""
    with httpx.Client(timeout=30) as client:
        for side in sides:
            side.block(client, _WARM_UP)
            side.medians.clear()
            side.processor, side.calls = dict.fromkeys(PARTS, 0.0), 0
        for number in range(blocks):
            for side in sides if number % 2 else reversed(sides):
                side.block(client)
    ratios: list[float] = [second / first for first, second in zip(*(side.medians for side in sides), strict=True)]
    return statistics.median(ratios)


@contextmanager
def span_sink() -> Iterator[str]:
    """The URL of a receiver of OTLP that accepts and forgets everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path.cwd(), help="the other checkout; default: this one")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of the other one")
    parser.add_argument("--tracing", action="store_true", help="the other one exports traces of every call")
    parser.add_argument("--blocks", type=int, default=40, help=f"blocks of {BLOCK} calls; default: %(default)s")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(json.loads(options.serve))
        return 0
    variables = dict(each.split("=", 1) for each in options.set)
    name = (
        ", ".join(options.set)
        or ("with tracing" if options.tracing else "")
        or f"{options.tree.resolve().name} (the other tree)"
    )
    with ExitStack() as stack:
        if options.tracing:
            sink = stack.enter_context(span_sink())
            variables |= {"RERANKQ_TRACING": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": sink}
        sides = [start(stack, "this", Path.cwd(), {}), start(stack, name, options.tree.resolve(), variables)]
        ratio = compare(sides, options.blocks)
        print("| service | median call, ms | API, µs a call | worker, µs a call | Redis, µs a call |")
        print("|---|---:|---:|---:|---:|")
        for side in sides:
            print(side.row())
        print(f"\nA call of the second takes {ratio:.3f} times as long, the median of {options.blocks} blocks.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
