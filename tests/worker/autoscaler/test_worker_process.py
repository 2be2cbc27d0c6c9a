import os

import pytest

from worker.autoscaler.worker_process import WorkerOutput


@pytest.fixture
def output() -> WorkerOutput:
    return WorkerOutput()


def write(output: WorkerOutput, text: bytes) -> None:
    os.write(output.write_end, text)


def test_what_a_worker_writes_is_passed_on_line_by_line(
    output: WorkerOutput, capfd: pytest.CaptureFixture[str]
) -> None:
    write(output, b"one\ntw")
    output.pass_on("worker[1]")
    write(output, b"o\nthree")
    output.pass_on("worker[1]")
    assert capfd.readouterr().err == "worker[1] one\nworker[1] two\n"
    output.close()


def test_nobody_waits_for_what_is_not_written_yet(output: WorkerOutput, capfd: pytest.CaptureFixture[str]) -> None:
    output.pass_on("worker[1]")
    assert capfd.readouterr().err == ""
    output.close()


@pytest.mark.parametrize(
    ("written", "last"),
    [
        (b"", ""),
        (b"a\nRuntimeError: no device\n\n  \n", "RuntimeError: no device"),
        (b"a\nno end of line", "no end of line"),
        (b"\xff\n", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_its_last_line_that_says_anything_is_kept(output: WorkerOutput, written: bytes, last: str) -> None:
    write(output, written)
    output.pass_on("worker[1]")
    assert output.last_line == last
    output.close()


def test_a_worker_may_write_a_lot_before_anybody_reads(output: WorkerOutput) -> None:
    os.set_blocking(output.write_end, False)
    assert os.write(output.write_end, b"x" * 500_000) == 500_000
    output.pass_on("worker[1]")
    output.close()
