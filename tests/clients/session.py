"""Runs one set of clients in the environment that holds them: `python -m tests.clients.session SET SECONDS`.

Reads the targets as JSON from its standard input, and writes one line of JSON for each client when it is done. Nothing
here can reach anything but this machine: whoever tries is refused, and is a failure of its own.
"""

import faulthandler
import importlib
import importlib.metadata
import ipaddress
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TextIO
from uuid import uuid4

from tests.clients.case import Client, Target

CALLERS = 8
"""Most of the time is spent in the libraries' own pauses between two tries."""
_ERRORS = {400: "real", 401: "refused", 404: "real", 429: "limited", 503: "down"}
_UNKNOWN = (400, 404)
"""What is said of a model or an address that is not there; 400 is Infinity's way."""

Check = dict[str, str | bool]


def main() -> int:
    name, seconds = sys.argv[1:]
    # Whoever hangs says where.
    faulthandler.dump_traceback_later(float(seconds), exit=True)
    given = json.load(sys.stdin)
    targets = {key: Target(**target) for key, target in given["targets"].items()}
    strangers: set[str] = set()
    sys.addaudithook(_keep_to_this_machine(strangers))
    with _own_output() as output:
        cases = importlib.import_module(f"tests.clients.{name}")
        clients: list[Client] = [it for it in cases.CLIENTS if given["only"] in f"{name} {it.name}"]
        for client in clients:
            if client.alone:
                _tell(output, _outcome(client, targets))
        with ThreadPoolExecutor(CALLERS) as callers:
            asked = [callers.submit(_outcome, client, targets) for client in clients if not client.alone]
            for future in as_completed(asked):
                _tell(output, future.result())
        called = ", ".join(sorted(strangers - getattr(cases, "STRANGERS", set())))
        silence = _check("nobody called home", called and f"they called {called}")
        _tell(output, {"client": f"all of {name}", "version": "", "checks": [silence]})
    return 0


def _outcome(client: Client, targets: dict[str, Target]) -> dict[str, Any]:
    once = replace(targets["real"], url=f"{targets['limited'].url}/once/{uuid4().hex}")
    targets = targets | {"once": once}
    targets = {name: replace(target, url=target.url + client.prefix) for name, target in targets.items()}
    checks = [_success(client, targets["real"])]
    for status, expected in client.raises.items():
        target = targets[_ERRORS[status]]
        if status in _UNKNOWN:
            if client.mistake is None:
                continue
            target = client.mistake(replace(target, says="no-such-model"))
        checks.append(_error(client, status, expected, target))
    if client.patient:
        checks.append(_patience(client, targets["once"]))
    version = f"{client.distribution} {importlib.metadata.version(client.distribution)}"
    name = f"{client.name}{client.prefix and f' at {client.prefix}'}"
    return {"client": name, "version": version, "checks": checks}


def _success(client: Client, target: Target) -> Check:
    try:
        return _check(client.call(target))
    except Exception as error:
        return _check("no answer", _told(error))


def _patience(client: Client, target: Target) -> Check:
    """The first call is answered with 429 and a Retry-After of a second."""
    began = time.monotonic()
    check = _success(client, target)
    seconds = time.monotonic() - began
    hasty = "" if seconds >= 1 else "it did not wait for the second that it was told"
    return _check(f"429, then answered after {seconds:.1f} s", str(check["problem"]) or hasty)


def _error(client: Client, status: int, expected: type[Exception], target: Target) -> Check:
    shown = f"{status} {expected.__name__}"
    try:
        answer = client.call(target)
    except Exception as error:
        if type(error) is not expected:
            return _check(f"{status} {type(error).__name__}", f"not {expected}: {_told(error)}")
        if status not in client.mute and target.says not in str(error):
            return _check(shown, f"{target.says!r} is not in what it says: {error}")
        return _check(shown)
    return _check(shown, f"it was not raised; the answer: {answer}")


def _told(error: Exception) -> str:
    """The error and its last few steps: the libraries' tracebacks are long."""
    return "".join(traceback.format_exception(error, limit=-3, chain=False))[-2000:]


def _check(shown: str, problem: str = "") -> Check:
    return {"shown": shown, "passed": not problem, "problem": problem}


def _keep_to_this_machine(strangers: set[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook: libraries stay as they are, but what they reach for is seen and refused."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            host = str(arguments[1][0])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = str(arguments[0])
        else:
            return
        if not _is_here(host):
            strangers.add(host)
            raise OSError(f"{host} is not this machine")

    return hook


def _is_here(host: str) -> bool:
    try:
        return host in ("localhost", "None") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _own_output() -> Iterator[TextIO]:
    """The real standard output; what the libraries print goes where errors go."""
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        yield output


def _tell(output: TextIO, outcome: dict[str, Any]) -> None:
    output.write(json.dumps(outcome) + "\n")
    output.flush()


if __name__ == "__main__":
    sys.exit(main())
