"""`python -m tests.clients` runs unmodified client libraries against a running service.

Prints one line per client, and exits with status 1 when a check failed. Each set of libraries has its own environment
(`make test-clients` creates them) and runs in a process that can connect only to this machine. `--js` runs the
JavaScript libraries instead (`make test-clients-js`).
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from infra.local.console import say
from infra.local.stack import ROOT, StackError
from tests.clients.stage import start_targets

SETS = ("sdks", "frameworks", "infinity", "queues")
JS = "js"
SESSION_SECONDS = 150.0
# Disables telemetry, update checks and downloads of price lists. The session blocks connections that remain.
NO_TELEMETRY = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "NO_PROXY": "*",
    "NVIDIA_USAGE_TELEMETRY_ENABLED": "false",
}
_KEPT_VARIABLES = re.compile(r"PATH|LANG|LC_.*|TZ|TERM|SSL_CERT_.*")


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = Console()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return run(options, console)
    except KeyboardInterrupt:
        say(console, "stopped")
        return 130
    except StackError as error:
        console.print(f"✗ {error}", markup=False, highlight=False, soft_wrap=True)
        return 1


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.clients", description="Run real client libraries against the service."
    )
    parser.add_argument("--engine", choices=("lexical", "vllm"), default="lexical", help="default: %(default)s")
    parser.add_argument("--js", action="store_true", help="run the JavaScript clients; needs node")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="run only clients whose set and name contain this text"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, console: Console) -> int:
    passed = failed = 0
    with start_targets(options.engine) as targets:
        for name in (JS,) if options.js else SETS:
            for outcome in _run_set(name, targets, options.only):
                console.print(_line(outcome), highlight=False, soft_wrap=True)
                for check in outcome["checks"]:
                    passed, failed = (passed + 1, failed) if check["passed"] else (passed, failed + 1)
                    if check["problem"]:
                        console.print(f"    {check['problem']}", markup=False, highlight=False, soft_wrap=True)
    say(console, f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def _run_set(name: str, targets: dict[str, dict[str, str]], only: str) -> Iterator[dict[str, Any]]:
    """Run a set of clients and yield the outcome of each. Raises StackError when the process fails or times out."""
    command = _command(name)
    with tempfile.TemporaryDirectory(prefix="rerankq-clients-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as errors:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(folder),
                cwd=ROOT,
                text=True,
            )
        assert child.stdin
        assert child.stdout
        try:
            with child.stdin as given:
                json.dump({"targets": targets, "only": only}, given)
            for line in child.stdout:
                yield json.loads(line)
            if child.wait(SESSION_SECONDS):
                raise StackError(f"the set {name} did not complete:\n{log.read_text(errors='replace')[-4000:]}")
        finally:
            child.kill()
            child.wait()


def _command(name: str) -> list[str]:
    """The command that runs a set of clients. Raises StackError when its environment is missing."""
    if name == JS:
        folder = Path(__file__).parent / "js"
        if not (node := shutil.which("node")) or not (folder / "node_modules").exists():
            raise StackError(
                "node or the JavaScript packages are not installed; `make test-clients-js` installs the packages"
            )
        return [node, str(folder / "session.mjs")]
    python = ROOT / f".venv-clients-{name}" / "bin" / "python"
    if not python.exists():
        raise StackError(f"{python.parent.parent.name} does not exist; `make test-clients` creates it")
    return [str(python), "-m", "tests.clients.session", name, str(SESSION_SECONDS)]


def _environment(folder: str) -> dict[str, str]:
    """An environment without the user's keys, proxies and settings, and with a temporary home folder."""
    kept = {name: value for name, value in os.environ.items() if _KEPT_VARIABLES.fullmatch(name)}
    return {**kept, **NO_TELEMETRY, "HOME": folder, "TMPDIR": folder}


def _line(outcome: dict[str, Any]) -> str:
    checks = outcome["checks"]
    mark = "[green]✓[/green]" if all(check["passed"] for check in checks) else "[red]✗[/red]"
    shown = " · ".join(check["shown"] if check["passed"] else f"[red]{check['shown']}[/red]" for check in checks)
    return f"{mark} {outcome['client']:<38} [dim]{outcome['version']:<46}[/dim] {shown}"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
