"""`python -m infra.local`: the whole service on this machine, with a first example, until Ctrl-C."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.markup import escape

from infra.local.console import Steps, say
from infra.local.demo import DemoError, run_demo
from infra.local.stack import Options, Stack, StackError
from shared.errors import RerankqError

READY_SECONDS = 900.0
"""Long enough to fetch a large model from a hub."""
TEND_SECONDS = 0.1


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local",
        description="Run Redis, the API and workers on this machine, rank an example, and serve until Ctrl-C.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address the API listens on; default: %(default)s")
    parser.add_argument("--port", type=int, help="default: 8000, or a free one when that is taken; 0: a free one")
    parser.add_argument(
        "--redis-url",
        default=os.environ.get("REDIS_URL"),
        help="use this Redis; default: REDIS_URL, or else an embedded one that ends with this command",
    )
    parser.add_argument("--model", help="a name from infra/models.yaml, a hub id or a folder; default: the bundled one")
    parser.add_argument(
        "--engine",
        choices=("vllm", "lexical"),
        help="lexical scores by word overlap and needs no model; default: vllm",
    )
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="worker processes; default: 1")
    parser.add_argument(
        "--demo", action="store_true", help="end after the example, with status 0 if its order was right"
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = Console()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return run(options, console)
    except KeyboardInterrupt:
        # Before it served, an interruption is no success; afterwards it is how the command ends.
        say(console, "stopped")
        return 130
    except (RerankqError, StackError, DemoError) as error:
        say(console, f"[red]✗[/red] {escape(str(error))}")
        return 1


def run(options: argparse.Namespace, console: Console) -> int:
    """Start everything, show the example, serve. Raises KeyboardInterrupt when interrupted before it serves."""
    steps = Steps(console)
    started = time.monotonic()
    stack_options = Options(
        options.host, options.port, options.redis_url, options.model, options.engine, options.workers
    )
    with Stack(stack_options) as stack:
        with steps.step("starting Redis") as done:
            stack.start_redis()
            done.append(f"Redis at {stack.redis_url.rpartition('@')[2].removeprefix('redis://')}")
        model = stack.start_service()
        engine = options.engine or model.engine
        with steps.step(f"starting the API, and a worker that loads {model.name} into {engine}") as done:
            stack.wait_ready(READY_SECONDS)
            done.append(f"API and {options.workers} worker{'s' * (options.workers > 1)}, {model.name} on {engine}")
        seconds = time.monotonic() - started
        say(console, f"[bold]ready[/bold] at {stack.url} after {seconds:.1f} s\n")
        in_order = run_demo(stack.url, console)
        if options.demo:
            say(console, "the order is right" if in_order else "[red]the order is wrong[/red]")
            return 0 if in_order else 1
        return _serve(stack, console)


def _serve(stack: Stack, console: Console) -> int:
    """Until Ctrl-C, start again whoever ends by itself, and say so."""
    with _asked_to_stop() as asked:
        say(console, f"serving at {stack.url} (docs at {stack.url}/docs); Ctrl-C stops everything")
        while not asked:
            for sentence in stack.tend():
                say(console, f"[yellow]![/yellow] {escape(sentence)}")
            time.sleep(TEND_SECONDS)
    say(console, "\nstopping ...")
    return 0


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Within the block signals only fill the list: an exception amid a start would lose the process just started."""
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: asked.append(number)) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
