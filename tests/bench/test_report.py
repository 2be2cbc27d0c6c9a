"""The results of a run: table, JSON and chart."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import chart, report
from bench.cases import Measured
from bench.measurements import Plan

SVG = "{http://www.w3.org/2000/svg}"
PLAN = Plan(["a", "j", "l"], rounds=2, seconds=8.0, backlog=5000, seed=1)


@pytest.fixture
def measured() -> Measured:
    found = Measured()
    for theirs, ours in ((120.0, 126.0), (124.0, 130.0)):
        found.add("a", "theirs", theirs)
        found.add("a", "ours", ours)
    for side in ("theirs", "ours"):
        found.curves[side] = {count: [{"p50": 15.0 * count, "p99": 20.0 * count}] * 2 for count in (1, 8, 64)}
    found.misses["j"] = "no response"
    found.failures.append("round 2 of 2: ours, l: the connection was lost")
    return found


def test_the_table_has_one_row_per_case_and_lists_failures(measured: Measured) -> None:
    lines = report.table(measured, PLAN.cases).splitlines()
    assert lines[2] == (
        "| a | 32 connections, 20 documents of 100 words | 122.0 pairs/s | 128.0 pairs/s | 1.049 | ≥ 1.00 | met | 3% |"
    )
    assert lines[3].endswith("| - | - | - | ≤ 5 ms | missed | 0% |")
    assert "Missed j: no response" in lines
    assert lines[-1] == "- round 2 of 2: ours, l: the connection was lost"


def test_the_highest_cost_of_the_load_generator_is_printed(measured: Measured) -> None:
    for case, rate in (("a", 6.0), ("d", 500.0)):
        measured.loads.append({"case": case, "server": "ours", "cpu_us": 100.0, "requests_per_second": rate})
    expected = "The load generator took at most 5.0% of one core (case d, ours: 100 µs a request)."
    assert expected in report.table(measured, PLAN.cases).splitlines()


def test_the_json_has_all_rounds_the_machine_and_the_versions(measured: Measured, tmp_path: Path) -> None:
    written, drawn = report.write(measured, PLAN, tmp_path, "run")
    content = json.loads(written.read_text())
    assert content["rounds"]["a"] == {"theirs": [120.0, 124.0], "ours": [126.0, 130.0]}
    assert content["machine"]["cores"] >= 1
    assert content["versions"]["python"]
    assert content["plan"]["rounds"] == 2
    assert drawn.name == "latency_under_load.svg"


def test_a_sweep_of_one_server_is_not_drawn(measured: Measured, tmp_path: Path) -> None:
    del measured.curves["theirs"]
    assert [path.name for path in report.write(measured, PLAN, tmp_path, "run")] == ["run.json"]


def test_the_chart_has_both_percentiles_of_both_servers_within_its_bounds(measured: Measured) -> None:
    root = ET.fromstring(chart.latency_under_load(measured.curves))
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter(f"{SVG}circle")]
    curves = [path for path in root.iter(f"{SVG}path") if "L" in path.get("d", "")]
    assert {path.get("class") for path in curves} == {
        f"line {side} {percentile}" for side in ("ours", "theirs") for percentile in ("p50", "p99")
    }
    assert len(dots) == 2 * 3
    assert all(64 <= x <= 736 and 84 <= y <= 384 for x, y in dots)


def test_latency_grows_upwards_and_load_to_the_right(measured: Measured) -> None:
    root = ET.fromstring(chart.latency_under_load({"ours": measured.curves["ours"]}))
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter(f"{SVG}circle")]
    assert dots == sorted(dots)
    assert [y for _, y in dots] == sorted((y for _, y in dots), reverse=True)


def test_a_chart_without_data_is_rejected() -> None:
    with pytest.raises(ValueError, match="no data to draw"):
        chart.latency_under_load({})
