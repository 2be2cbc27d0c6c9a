"""Runs one set of clients in the environment that holds them: `python -m tests.clients.session SET SECONDS`.

Reads the targets as JSON from standard input, and writes one line of JSON when a client's checks are complete.
Connections to other hosts are blocked, and reported as a failed check.
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

THREADS = 8
"""More than cores: the clients mostly wait between their retries."""
_TARGETS = {400: "real", 401: "refused", 404: "real", 429: "limited", 503: "down"}
_NOT_FOUND = (400, 404)
"""The statuses for an unknown model or path; Infinity uses 400."""

Check = dict[str, str | bool]


def main() -> int:
    name, seconds = sys.argv[1:]
    # Prints where a client hangs.
    faulthandler.dump_traceback_later(float(seconds), exit=True)
    given = json.load(sys.stdin)
    targets = {key: Target(**target) for key, target in given["targets"].items()}
    blocked: set[str] = set()
    sys.addaudithook(_block_other_hosts(blocked))
    with _reserve_stdout() as output:
        cases = importlib.import_module(f"tests.clients.{name}")
        clients: list[Client] = [it for it in cases.CLIENTS if given["only"] in f"{name} {it.name}"]
        for client in clients:
            if client.exclusive:
                _write(output, _check_client(client, targets))
        with ThreadPoolExecutor(THREADS) as executor:
            futures = [executor.submit(_check_client, client, targets) for client in clients if not client.exclusive]
            for future in as_completed(futures):
                _write(output, future.result())
        hosts = ", ".join(sorted(blocked - getattr(cases, "EXPECTED_BLOCKED_HOSTS", set())))
        local_only = _result("no connections to other hosts", hosts and f"clients tried to connect to {hosts}")
        _write(output, {"client": f"all of {name}", "version": "", "checks": [local_only]})
    return 0


def _check_client(client: Client, targets: dict[str, Target]) -> dict[str, Any]:
    once = replace(targets["real"], url=f"{targets['limited'].url}/once/{uuid4().hex}")
    targets = targets | {"once": once}
    targets = {name: replace(target, url=target.url + client.prefix) for name, target in targets.items()}
    checks = [_check_success(client, targets["real"])]
    for status, expected in client.raises.items():
        target = targets[_TARGETS[status]]
        if status in _NOT_FOUND:
            if client.not_found is None:
                continue
            target = client.not_found(replace(target, says="no-such-model"))
        checks.append(_check_error(client, status, expected, target))
    if client.retries:
        checks.append(_check_retry(client, targets["once"]))
    version = f"{client.distribution} {importlib.metadata.version(client.distribution)}"
    name = f"{client.name}{client.prefix and f' at {client.prefix}'}"
    return {"client": name, "version": version, "checks": checks}


def _check_success(client: Client, target: Target) -> Check:
    try:
        return _result(client.call(target))
    except Exception as error:
        return _result("no result", _describe(error))


def _check_retry(client: Client, target: Target) -> Check:
    """The first request gets 429 with a Retry-After of one second."""
    began = time.monotonic()
    check = _check_success(client, target)
    seconds = time.monotonic() - began
    hasty = "" if seconds >= 1 else "the client did not wait for the Retry-After of one second"
    return _result(f"429, then answered after {seconds:.1f} s", str(check["problem"]) or hasty)


def _check_error(client: Client, status: int, expected: type[Exception], target: Target) -> Check:
    shown = f"{status} {expected.__name__}"
    try:
        result = client.call(target)
    except Exception as error:
        if type(error) is not expected:
            return _result(f"{status} {type(error).__name__}", f"not {expected}: {_describe(error)}")
        if status not in client.drops_message and target.says not in str(error):
            return _result(shown, f"{target.says!r} is not in the message: {error}")
        return _result(shown)
    return _result(shown, f"no exception was raised; the result: {result}")


def _describe(error: Exception) -> str:
    """The error and the last three frames of its traceback."""
    return "".join(traceback.format_exception(error, limit=-3, chain=False))[-2000:]


def _result(shown: str, problem: str = "") -> Check:
    return {"shown": shown, "passed": not problem, "problem": problem}


def _block_other_hosts(blocked: set[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that rejects connections to other hosts and adds the hosts to `blocked`."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            host = str(arguments[1][0])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = str(arguments[0])
        else:
            return
        if not _is_local(host):
            blocked.add(host)
            raise OSError(f"{host} is not this machine")

    return hook


def _is_local(host: str) -> bool:
    try:
        return host in ("localhost", "None") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _reserve_stdout() -> Iterator[TextIO]:
    """Yield the real standard output, and redirect the libraries' output to standard error."""
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        yield output


def _write(output: TextIO, outcome: dict[str, Any]) -> None:
    output.write(json.dumps(outcome) + "\n")
    output.flush()


if __name__ == "__main__":
    sys.exit(main())
