"""The GPU benchmark, tried on the CPU: its steps on real servers and engines, its lines, its table and its deadline."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.cases import ENGINE, Measured, judge
from bench.generator import ROOT
from bench.gpu.__main__ import parse, summary
from bench.gpu.cases import CASES, ENGINE_LOADS, SERVICE_CASES, Lines, share_of_rate
from bench.gpu.deadline import Deadline, DeadlineReached
from bench.gpu.run import STEPS, GpuRun, sizes
from bench.models import MadeModel
from bench.servers import OURS, THEIRS

DEVICE = {"name": "A Device", "matrix_tflops": 812.3, "matrix_size": 8192, "dtype": "bfloat16"}


def run_small(out: Path, *arguments: str, seconds: int) -> list[dict[str, Any]]:
    """Run the trial on a CPU. Returns its lines."""
    process = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--small", "--out", str(out), "--deadline", str(seconds), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout == (out / "gpu.jsonl").read_text()
    assert (out / "gpu.md").read_text() in process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def loads_of(lines: list[dict[str, Any]]) -> set[tuple[str, str]]:
    loads = [line for line in lines if line["result"] == "load"]
    assert all(load["pairs_per_second"] > 0 and load["failed"] == 0 for load in loads)
    return {(load["server"], load["case"]) for load in loads}


@pytest.mark.slow
@pytest.mark.engine
def test_a_small_run_measures_the_service_and_its_engine_on_a_cpu(tmp_path: Path) -> None:
    lines = run_small(tmp_path, "--only", "ours", "our-engine", seconds=110)
    device = next(line for line in lines if line["result"] == "device")
    assert device["matrix_tflops"] > 0
    assert loads_of(lines) == {(OURS, case) for case in SERVICE_CASES}
    engine = [line for line in lines if line["result"] == "engine"]
    assert [line["case"] for line in engine] == list(ENGINE_LOADS)
    assert all(0 < line["percent_of_matrix_rate"] < 100 for line in engine)
    assert "| share | engine 20 x 100: share of the device's matrix rate |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.timeout(320)
def test_a_small_run_measures_everything_on_a_cpu(tmp_path: Path) -> None:
    lines = run_small(tmp_path, seconds=300)
    assert loads_of(lines) == {(side, case) for side in (THEIRS, OURS) for case in SERVICE_CASES}
    assert [line["step"] for line in lines if line["result"] == "took"] == list(STEPS[:-1])
    engines = {(line["side"], line["case"]) for line in lines if line["result"] == "engine"}
    assert engines == {(side, case) for side in (ENGINE, OURS) for case in ENGINE_LOADS}
    assert {line["server"] for line in lines if line["result"] == "start"} == {THEIRS, OURS}


def test_without_time_every_step_is_skipped_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = GpuRun(sizes(True, 0.0, {}), tmp_path, Lines(None), Deadline(0.0))
    run.run(STEPS, rounds=1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["result"], line["step"]) for line in lines] == [("skipped", step) for step in STEPS]
    assert lines[0]["reason"].startswith("0 s are left; it takes at least")


def test_the_deadline_interrupts_what_still_runs() -> None:
    deadline = Deadline(0.2)
    began = time.monotonic()
    with pytest.raises(DeadlineReached), deadline.enforced():
        time.sleep(30)
    assert time.monotonic() - began < 5
    assert deadline.left() <= 0


def test_a_block_that_ends_in_time_is_not_interrupted_later() -> None:
    with Deadline(0.1).enforced():
        pass
    time.sleep(0.2)


def test_the_share_counts_matrix_products_and_attention() -> None:
    model = MadeModel(parameters=1000, flops_per_token=600, flops_per_token_squared=2)
    # A pair of 100 words has 114 tokens.
    assert model.flops(114) == 114 * 600 + 114 * 114 * 2
    assert share_of_rate(model, 100, pairs_per_second=1e6, matrix_tflops=1.0) == pytest.approx(9.4392)


def verdicts(**values: list[float]) -> dict[str, Any]:
    found = Measured()
    for case, (theirs, ours) in values.items():
        found.add(case, THEIRS, theirs)
        found.add(case, OURS, ours)
    return {verdict.case: verdict.result for verdict in judge(found, list(values), CASES)}


def test_the_service_must_be_as_fast_as_vllms_server_in_every_case() -> None:
    assert verdicts(a=[100.0, 100.0], d=[100.0, 99.0]) == {"a": "met", "d": "missed"}
    assert verdicts(e=[10.0, 10.0], f=[10.0, 10.1]) == {"e": "met", "f": "missed"}


def test_the_engine_must_reach_two_fifths_of_the_matrix_rate() -> None:
    found = Measured()
    found.add("share", OURS, 41.0)
    assert [(verdict.target, verdict.result) for verdict in judge(found, ["share"], CASES)] == [("≥ 40 %", "met")]


def test_the_table_names_the_device_and_leaves_out_what_was_not_measured() -> None:
    found = Measured()
    for side, rate in ((THEIRS, 4000.0), (OURS, 4400.0)):
        found.add("a", side, rate)
    found.add("a-engine", ENGINE, 5000.0)
    lines = summary(DEVICE, found).splitlines()
    assert lines[0] == "A Device: 812 TFLOP/s in a matrix product of 8,192 x 8,192 in bfloat16."
    assert lines[4].startswith(
        "| a | 64 connections, 20 documents of 100 words | 4,000 pairs/s | 4,400 pairs/s | 1.100 "
    )
    assert lines[5].startswith("| a-engine | case a against vLLM's engine without a server | 5,000 pairs/s |")
    assert lines[5].endswith("| 0.880 | - | - | 0% |")
    assert len(lines) == 6


def test_a_gpu_gets_bfloat16_and_the_options_reach_both_sides() -> None:
    options = parse(["--engine-args", '{"enforce_eager": true}', "--seconds", "2"])
    chosen = sizes(options.small, options.seconds, options.engine_args)
    assert (chosen.model, chosen.seconds) == ("xlm-roberta-large", 2.0)
    assert chosen.engine_args["dtype"] == "bfloat16"
    assert chosen.engine_args["enforce_eager"] is True


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--engine-args", "[1]"], "--engine-args: must be a JSON object"),
        (["--deadline", "20"], "--deadline must be more than 20 s"),
        (["--only", "everything"], "--only: invalid choice: 'everything'"),
    ],
)
def test_an_invalid_option_is_named(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as rejected:
        parse(arguments)
    assert rejected.value.code == 2
    assert reason in capsys.readouterr().err
