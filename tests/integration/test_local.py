"""`python -m infra.local`: runs the demo, serves requests, restarts processes, and leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from infra.local.stack import ROOT
from tests.stacks import PANDA, write_models


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """Run the command with a separate temporary folder and its output in a file. Killed on exit if it still runs."""
    scratch = folder / "scratch"
    scratch.mkdir()
    output = folder / "output"
    command = [sys.executable, "-m", "infra.local", "--engine", "lexical", *arguments]
    with output.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(scratch)},
            stdout=stream,
            stderr=stream,
            text=True,
        )
    try:
        yield process, output
    finally:
        process.kill()
        process.wait()


def wait_for_text(output: Path, text: str) -> str:
    deadline = time.monotonic() + 60
    while text not in (content := output.read_text()):
        assert time.monotonic() < deadline, content
        time.sleep(0.05)
    return content


def descendants(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_all_exit(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive


def test_demo_exits_after_showing_the_right_order(tmp_path: Path) -> None:
    with started(tmp_path, "--demo", "--port", "0") as (process, output):
        assert process.wait(timeout=60) == 0
        text = output.read_text()
        assert "ready at http://127.0.0.1:" in text
        assert "curl -s http://127.0.0.1:" in text
        assert text.rstrip().endswith("the order is right")
        assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["one", "two processes"])
def test_ctrl_c_leaves_no_process_file_or_socket(tmp_path: Path, options: list[str]) -> None:
    with started(tmp_path, "--port", "0", *options) as (process, output):
        text = wait_for_text(output, "Ctrl-C stops everything")
        port = int(text.split("ready at http://127.0.0.1:")[1].split()[0])
        children = descendants(process)
        assert len(children) >= 3
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert_all_exit(children)
        assert list((tmp_path / "scratch").iterdir()) == []
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def find_process(process: "subprocess.Popen[str]", name: str) -> psutil.Process:
    """The process with this name. Celery renames a running worker process to `worker@...`."""
    marks = {
        "api": r"-m api\b",
        "worker-1": r"-m worker\b|worker@",
        "autoscaler": r"-m worker\.autoscaler\b",
        "redis": r"(valkey|redis)-server\b",
    }[name]
    (found,) = [child for child in descendants(process) if re.search(marks, " ".join(child.cmdline()))]
    return found


def assert_nothing_left(folder: Path) -> None:
    """No process uses this run's temporary folder, not even one that started during the shutdown."""
    scratch = str(folder / "scratch")
    deadline = time.monotonic() + 15
    while any(scratch in temporary_folder(process) for process in psutil.process_iter()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert list((folder / "scratch").iterdir()) == []


def temporary_folder(process: psutil.Process) -> str:
    try:
        return process.environ().get("TMPDIR", "")
    except psutil.Error:
        return ""


def wait_for_ranking(url: str, seconds: float) -> None:
    """Wait until a request with a new query returns its ranking."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx.HTTPError):
            left = max(deadline - time.monotonic(), 0.1)
            if httpx.post(f"{url}/v1/rerank", json=PANDA | {"query": uuid4().hex}, timeout=left).status_code == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [("worker-1", ["--workers", "1"]), ("autoscaler", []), ("api", []), ("redis", [])],
    ids=["worker", "autoscaler", "api", "redis"],
)
def test_killed_process_is_restarted(tmp_path: Path, name: str, options: list[str]) -> None:
    with started(tmp_path, "--port", "0", *options) as (process, output):
        url = wait_for_text(output, "Ctrl-C stops everything").split("ready at ")[1].split()[0]
        job = httpx.post(f"{url}/v1/rerank", json=PANDA).json()["id"]

        victim = find_process(process, name)
        victim.kill()
        wait_for_text(output, f"{name} was terminated by SIGKILL; restarting in 0.5 s")
        wait_for_ranking(url, seconds=15)
        assert find_process(process, name).pid != victim.pid
        assert httpx.get(f"{url}/v1/jobs/{job}/results").status_code == 200
        assert output.read_text().count("restarting") == 1

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert_nothing_left(tmp_path)


@pytest.mark.parametrize("seconds_after", [0.0, 0.45, 0.6], ids=["waiting", "starting", "loading"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("worker-1", ["--workers", "1"]), ("autoscaler", []), ("redis", [])],
    ids=["worker", "autoscaler", "redis"],
)
def test_ctrl_c_during_a_restart_leaves_nothing(
    tmp_path: Path, name: str, options: list[str], seconds_after: float
) -> None:
    with started(tmp_path, "--port", "0", *options) as (process, output):
        wait_for_text(output, "Ctrl-C stops everything")
        find_process(process, name).kill()
        wait_for_text(output, "restarting in 0.5 s")
        time.sleep(seconds_after)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert_nothing_left(tmp_path)


def test_sigkill_ends_all_processes(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0") as (process, output):
        wait_for_text(output, "Ctrl-C stops everything")
        children = descendants(process)
        process.kill()
        assert_all_exit(children)


def test_sigterm_during_the_start_ends_all_processes(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0") as (process, output):
        wait_for_text(output, "starting the API")
        children = descendants(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
        assert_all_exit(children)


@pytest.mark.parametrize("options", [[], ["--standby"], ["--workers", "1"]], ids=["none", "standby", "one"])
def test_worker_that_cannot_start_ends_the_stack_with_the_reason(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKQ_MODELS_FILE", write_models(tmp_path, engine_args={"delay_seconds": "soon"}))
    with started(tmp_path, "--port", "0", *options) as (process, output):
        assert process.wait(timeout=60) == 1
        assert "engine_args.delay_seconds must be a number of seconds, 0 or more" in output.read_text()


def test_output_explains_starting_and_stopping_a_worker(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0", "--idle-seconds", "1") as (process, output):
        text = wait_for_text(output, "the worker has stopped")
        messages = [line.removeprefix("• ") for line in text.splitlines() if line.startswith("• ")]
        assert messages[0] == "1 request waits: starting a worker"
        assert re.fullmatch(r"ready after \d+\.\d s", messages[1])
        assert messages[2:] == ["idle for 1 s: stopping the worker", "the worker has stopped"]
        assert not [child for child in descendants(process) if "worker@" in " ".join(child.cmdline())]


def test_workers_option_conflicts_with_pool_options(tmp_path: Path) -> None:
    with started(tmp_path, "--workers", "1", "--idle-seconds", "1") as (process, output):
        assert process.wait(timeout=30) == 2
        assert "--workers cannot be combined" in output.read_text()


def test_port_in_use_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        port = occupied.getsockname()[1]
        with started(tmp_path, "--port", str(port)) as (process, output):
            assert process.wait(timeout=30) == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in output.read_text()
