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
from infra.local.log_follower import follow_log
from infra.local.stack import Options, Stack, StackError
from infra.local.terminal import end_with_terminal, hush, minds_its_terminal
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
    workers = parser.add_argument_group(
        "workers", "None at first: a request wakes one, and it goes after some quiet. Or a fixed number of them:"
    )
    workers.add_argument("--workers", type=_positive, metavar="N", help="N workers, always")
    workers.add_argument("--idle-seconds", type=_seconds, metavar="S", help="how long one stays idle; default: 300")
    workers.add_argument("--max-workers", type=_positive, metavar="N", help="N at most; default: 1")
    workers.add_argument(
        "--standby", action="store_true", help="keep a process ready that has imported vLLM: a worker starts in seconds"
    )
    parser.add_argument(
        "--demo", action="store_true", help="end after the example, with status 0 if its order was right"
    )
    options = parser.parse_args(arguments)
    if options.workers and (options.idle_seconds is not None or options.max_workers or options.standby):
        parser.error("--workers keeps a fixed number: --idle-seconds, --max-workers and --standby are for the others")
    return options


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _seconds(text: str) -> float:
    if not 0 <= (number := float(text)) <= 604_800:
        raise ValueError
    return number


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = Console()
    if minds_its_terminal():
        end_with_terminal()
        signal.signal(signal.SIGHUP, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
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
    with Stack(stack_options(options)) as stack:
        with steps.step("starting Redis") as done:
            stack.start_redis()
            done.append(f"Redis at {stack.redis_url.rpartition('@')[2].removeprefix('redis://')}")
        model = stack.start_service()
        served = f"{model.name} on {options.engine or model.engine}"
        with steps.step(_starting(options, served)) as done:
            stack.wait_ready(READY_SECONDS)
            count = options.workers or 0
            done.append(f"API and {count} worker{'s' * (count != 1)}, {served}")
        seconds = time.monotonic() - started
        say(console, f"[bold]ready[/bold] at {stack.url} after {seconds:.1f} s\n")
        with follow_log(stack.log("autoscaler"), "autoscaler", lambda sentence: say(console, f"• {escape(sentence)}")):
            in_order = run_demo(stack.url, console, READY_SECONDS)
            if options.demo:
                say(console, "the order is right" if in_order else "[red]the order is wrong[/red]")
                return 0 if in_order else 1
            return _serve(stack, console)


def stack_options(options: argparse.Namespace) -> Options:
    """What the command line asks for, as the stack is told."""
    wishes = {"idle_seconds": options.idle_seconds, "max": options.max_workers, "standby": options.standby or None}
    pool = {name: value for name, value in wishes.items() if value is not None}
    return Options(
        options.host,
        options.port,
        options.redis_url,
        options.model,
        options.engine,
        options.workers or 1,
        pool=None if options.workers else pool,
    )


def _starting(options: argparse.Namespace, served: str) -> str:
    if options.workers is None:
        return f"starting the API; no worker yet for {served}"
    return f"starting the API, and {'a worker' if options.workers == 1 else f'{options.workers} workers'} for {served}"


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
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if minds_its_terminal() else [])]

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            hush()
        asked.append(number)

    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        hush()
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
