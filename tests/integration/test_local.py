"""`python -m infra.local`: shows the example, serves, and leaves nothing behind, however it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.local.stack import ROOT
from tests.stacks import write_models


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


def test_a_worker_that_cannot_start_is_explained_and_ends_everything(tmp_path: Path) -> None:
    models = write_models(tmp_path, engine_args={"delay_seconds": "soon"})
    os.environ["RERANKQ_MODELS_FILE"] = models
    try:
        with started(tmp_path, "--port", "0") as (process, output):
            assert process.wait(timeout=60) == 1
            assert "engine_args.delay_seconds must be a number of seconds, 0 or more" in output.read_text()
    finally:
        del os.environ["RERANKQ_MODELS_FILE"]


def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with started(tmp_path, "--port", str(port)) as (process, output):
            assert process.wait(timeout=30) == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in output.read_text()
