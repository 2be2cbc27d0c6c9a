"""`python -m infra.local`: shows the example, serves, and leaves nothing behind, however it ends."""

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
    """The command with a temporary folder of its own, its output in a file; killed at the latest on leaving."""
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


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive


def test_the_demo_ends_by_itself_with_the_right_order(tmp_path: Path) -> None:
    with started(tmp_path, "--demo", "--port", "0") as (process, output):
        assert process.wait(timeout=60) == 0
        text = output.read_text()
        assert "ready at http://127.0.0.1:" in text
        assert "curl -s http://127.0.0.1:" in text
        assert text.rstrip().endswith("the order is right")
        assert list((tmp_path / "scratch").iterdir()) == []


def test_ctrl_c_stops_every_process_and_leaves_no_file_and_no_socket(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0") as (process, output):
        text = wait_for_text(output, "Ctrl-C stops everything")
        port = int(text.split("ready at http://127.0.0.1:")[1].split()[0])
        children = family(process)
        assert len(children) >= 3
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert_gone(children)
        assert list((tmp_path / "scratch").iterdir()) == []
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def one_of(process: "subprocess.Popen[str]", name: str) -> psutil.Process:
    """The process of that name. A worker that works calls itself `worker@...`, after Celery's fashion."""
    marks = {
        "api": r"-m api\b",
        "worker-1": r"-m worker\b|worker@",
        "autoscaler": r"-m worker\.autoscaler\b",
        "redis": r"redis-server\b",
    }[name]
    (found,) = [child for child in family(process) if re.search(marks, " ".join(child.cmdline()))]
    return found


def assert_nothing_left(folder: Path) -> None:
    """No process has this run's temporary folder any more, also none that started after it was told to stop."""
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


def wait_for_answer(url: str, seconds: float) -> None:
    """Until a waiting call gets its ranking, of a query that was never asked before."""
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
def test_whoever_is_killed_while_it_serves_is_started_again(tmp_path: Path, name: str, options: list[str]) -> None:
    with started(tmp_path, "--port", "0", *options) as (process, output):
        url = wait_for_text(output, "Ctrl-C stops everything").split("ready at ")[1].split()[0]
        job = httpx.post(f"{url}/v1/rerank", json=PANDA).json()["id"]

        victim = one_of(process, name)
        victim.kill()
        wait_for_text(output, f"{name} was ended by SIGKILL; starting it again in 0.5 s")
        wait_for_answer(url, seconds=15)
        assert one_of(process, name).pid != victim.pid
        assert httpx.get(f"{url}/v1/jobs/{job}/results").status_code == 200
        assert output.read_text().count("starting it again") == 1

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert_nothing_left(tmp_path)


@pytest.mark.parametrize("seconds_after", [0.0, 0.45, 0.6], ids=["waiting", "starting", "loading"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("worker-1", ["--workers", "1"]), ("autoscaler", []), ("redis", [])],
    ids=["worker", "autoscaler", "redis"],
)
def test_ctrl_c_while_something_is_started_again_leaves_nothing(
    tmp_path: Path, name: str, options: list[str], seconds_after: float
) -> None:
    with started(tmp_path, "--port", "0", *options) as (process, output):
        wait_for_text(output, "Ctrl-C stops everything")
        one_of(process, name).kill()
        wait_for_text(output, "starting it again in 0.5 s")
        time.sleep(seconds_after)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert_nothing_left(tmp_path)


def test_killed_outright_it_still_takes_its_processes_along(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0") as (process, output):
        wait_for_text(output, "Ctrl-C stops everything")
        children = family(process)
        process.kill()
        assert_gone(children)


def test_interrupted_while_it_starts_it_cleans_up_too(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0") as (process, output):
        wait_for_text(output, "starting the API")
        children = family(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
        assert_gone(children)


@pytest.mark.parametrize("options", [[], ["--standby"], ["--workers", "1"]], ids=["none", "standby", "one"])
def test_a_worker_that_cannot_start_is_explained_and_ends_everything(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKQ_MODELS_FILE", write_models(tmp_path, engine_args={"delay_seconds": "soon"}))
    with started(tmp_path, "--port", "0", *options) as (process, output):
        assert process.wait(timeout=60) == 1
        assert "engine_args.delay_seconds must be a number of seconds, 0 or more" in output.read_text()


def test_it_says_when_a_worker_comes_and_goes_and_why(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0", "--idle-seconds", "1") as (process, output):
        text = wait_for_text(output, "the worker has stopped")
        told = [line.removeprefix("• ") for line in text.splitlines() if line.startswith("• ")]
        assert told[0] == "1 request waits: starting a worker"
        assert re.fullmatch(r"ready after \d+\.\d s", told[1])
        assert told[2:] == ["quiet for 1 s: stopping the worker", "the worker has stopped"]
        assert not [child for child in family(process) if "worker@" in " ".join(child.cmdline())]


def test_how_many_workers_is_said_in_one_way_only(tmp_path: Path) -> None:
    with started(tmp_path, "--workers", "1", "--idle-seconds", "1") as (process, output):
        assert process.wait(timeout=30) == 2
        assert "--workers keeps a fixed number" in output.read_text()


def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with started(tmp_path, "--port", str(port)) as (process, output):
            assert process.wait(timeout=30) == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in output.read_text()
