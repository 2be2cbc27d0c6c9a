import os

import pytest

from worker.autoscaler.worker_process import WorkerOutput


@pytest.fixture
def output() -> WorkerOutput:
    return WorkerOutput()


def write(output: WorkerOutput, text: bytes) -> None:
    os.write(output.write_end, text)


def test_output_is_forwarded_line_by_line(output: WorkerOutput, capfd: pytest.CaptureFixture[str]) -> None:
    write(output, b"one\ntw")
    output.forward("worker[1]")
    write(output, b"o\nthree")
    output.forward("worker[1]")
    assert capfd.readouterr().err == "worker[1] one\nworker[1] two\n"
    output.close()


def test_a_log_line_stays_json(output: WorkerOutput, capfd: pytest.CaptureFixture[str]) -> None:
    write(output, b'{"event": "ready", "model": "m"}\n')
    output.forward("worker[1]")
    assert capfd.readouterr().err == '{"event": "ready", "model": "m"}\n'
    output.close()


def test_forwarding_does_not_wait_for_output(output: WorkerOutput, capfd: pytest.CaptureFixture[str]) -> None:
    output.forward("worker[1]")
    assert capfd.readouterr().err == ""
    output.close()


@pytest.mark.parametrize(
    ("written", "last"),
    [
        (b"", ""),
        (b"a\nRuntimeError: no device\n\n  \n", "RuntimeError: no device"),
        (b"a\nno end of line", "no end of line"),
        (
            b'{"time": "...", "event": "the model cannot be loaded", "error": "no device"}\n',
            "the model cannot be loaded: no device",
        ),
        (b"\xff\n", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_last_line_that_is_not_blank_is_kept(output: WorkerOutput, written: bytes, last: str) -> None:
    write(output, written)
    output.forward("worker[1]")
    assert output.last_line == last
    output.close()


def test_a_worker_can_write_half_a_megabyte_before_its_output_is_read(output: WorkerOutput) -> None:
    os.set_blocking(output.write_end, False)
    assert os.write(output.write_end, b"x" * 500_000) == 500_000
    output.forward("worker[1]")
    output.close()
