"""`python -m infra.local`: runs the whole service on this machine, ranks an example, and serves until Ctrl-C."""

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
from infra.local.terminal import end_with_terminal, follows_its_terminal, silence_terminal
from shared.errors import RerankqError

READY_SECONDS = 900.0
"""Long enough to download a large model from a hub."""
CHECK_SECONDS = 0.1


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local",
        description="Run Redis, the API and workers on this machine, rank an example, and serve until Ctrl-C.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address the API listens on; default: %(default)s")
    parser.add_argument(
        "--port", type=int, help="default: 8000, or a free port when 8000 is taken; 0 selects a free port"
    )
    parser.add_argument(
        "--processes", type=_positive, metavar="N", help="processes of the API, one core each; default: 1"
    )
    parser.add_argument(
        "--redis-url",
        default=os.environ.get("REDIS_URL"),
        help="use this Redis; default: REDIS_URL, otherwise an embedded one that stops with this command",
    )
    parser.add_argument(
        "--model", help="a name from infra/models.yaml, a hub id or a folder; default: the bundled model"
    )
    parser.add_argument(
        "--engine",
        choices=("vllm", "lexical"),
        help="lexical scores by word overlap, without a model; default: the model's own, usually vllm",
    )
    workers = parser.add_argument_group(
        "workers", "By default no worker runs at first. A request starts one, and it stops when it is idle."
    )
    workers.add_argument("--workers", type=_positive, metavar="N", help="run exactly N workers")
    workers.add_argument(
        "--idle-seconds", type=_seconds, metavar="S", help="stop a worker after S idle seconds; default: 300"
    )
    workers.add_argument("--max-workers", type=_positive, metavar="N", help="run at most N workers; default: 1")
    workers.add_argument(
        "--standby",
        action="store_true",
        help="keep a standby process that has imported vLLM, so that workers start faster",
    )
    parser.add_argument(
        "--demo", action="store_true", help="exit after the example; exit status 0 if its order is right"
    )
    options = parser.parse_args(arguments)
    if options.workers and (options.idle_seconds is not None or options.max_workers or options.standby):
        parser.error("--workers cannot be combined with --idle-seconds, --max-workers or --standby")
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
    if follows_its_terminal():
        end_with_terminal()
        signal.signal(signal.SIGHUP, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(options, console)
    except KeyboardInterrupt:
        # An interruption before the service is ready is a failure. Afterwards Ctrl-C is the normal end.
        say(console, "stopped")
        return 130
    except (RerankqError, StackError, DemoError) as error:
        say(console, f"[red]✗[/red] {escape(str(error))}")
        return 1


def run(options: argparse.Namespace, console: Console) -> int:
    """Start everything, rank the example, serve. Raises KeyboardInterrupt when interrupted before serving."""
    steps = Steps(console)
    started = time.monotonic()
    with Stack(stack_options(options)) as stack:
        with steps.step("starting Redis") as result:
            stack.start_redis()
            result.append(f"Redis at {stack.redis_url.rpartition('@')[2].removeprefix('redis://')}")
        model = stack.start_service()
        served = f"{model.name} on {options.engine or model.engine}"
        with steps.step(_starting(options, served)) as result:
            stack.wait_ready(READY_SECONDS)
            count = options.workers or 0
            result.append(f"API and {count} worker{'s' * (count != 1)}, {served}")
        seconds = time.monotonic() - started
        say(console, f"[bold]ready[/bold] at {stack.url} after {seconds:.1f} s\n")
        with follow_log(stack.log("autoscaler"), "autoscaler", lambda sentence: say(console, f"• {escape(sentence)}")):
            in_order = run_demo(stack.url, console, READY_SECONDS)
            if options.demo:
                say(console, "the order is right" if in_order else "[red]the order is wrong[/red]")
                return 0 if in_order else 1
            return _serve(stack, console)


def stack_options(options: argparse.Namespace) -> Options:
    """The stack's options for a command line."""
    settings = {"idle_seconds": options.idle_seconds, "max": options.max_workers, "standby": options.standby or None}
    pool = {name: value for name, value in settings.items() if value is not None}
    return Options(
        options.host,
        options.port,
        options.redis_url,
        options.model,
        options.engine,
        options.workers or 1,
        pool=None if options.workers else pool,
        processes=options.processes,
    )


def _starting(options: argparse.Namespace, served: str) -> str:
    if options.workers is None:
        return f"starting the API; no worker yet for {served}"
    return f"starting the API, and {'a worker' if options.workers == 1 else f'{options.workers} workers'} for {served}"


def _serve(stack: Stack, console: Console) -> int:
    """Restart processes that end, with a message for each, until Ctrl-C."""
    with _collect_stop_signals() as signals:
        say(console, f"serving at {stack.url} (docs at {stack.url}/docs); Ctrl-C stops everything")
        while not signals:
            for sentence in stack.restart_ended():
                say(console, f"[yellow]![/yellow] {escape(sentence)}")
            time.sleep(CHECK_SECONDS)
    say(console, "\nstopping ...")
    return 0


@contextmanager
def _collect_stop_signals() -> Iterator[list[int]]:
    """Collect signals in a list while the block runs. An exception during a process start would leak the process."""
    signals: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if follows_its_terminal() else [])]

    def collect(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            silence_terminal()
        signals.append(number)

    before = [signal.signal(number, collect) for number in numbers]
    try:
        yield signals
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        silence_terminal()
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
