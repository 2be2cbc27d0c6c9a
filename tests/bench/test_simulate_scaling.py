"""The program that simulates scaling: its options, table and files."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import scaling_chart, scaling_report, simulate_scaling
from bench.fleet import Outcome
from bench.simulate_scaling import Case, cases, main, parse
from shared.models import PoolSettings

SVG = "{http://www.w3.org/2000/svg}"


def selected(arguments: list[str]) -> list[Case]:
    return list(cases(parse(arguments)))


class TestOptions:
    def test_the_default_is_every_pattern_with_every_usual_scaler(self) -> None:
        options = parse([])
        found = list(cases(options))
        assert [case.scaler for case in found[:4]] == ["rerankq", "kubernetes", "keda", "always-on"]
        assert len(found) == 4 * 7
        assert found[-1].traffic.name == "made_example"
        assert options.name == "scaling_simulation"

    @pytest.mark.parametrize("some", [["--only", "steady"], ["--set", "max=3"], ["--scalers", "keda"]])
    def test_a_partial_run_is_written_only_under_a_name(self, some: list[str]) -> None:
        assert parse(some).name == ""
        assert parse([*some, "--name", "mine"]).name == "mine"

    def test_settings_apply_to_the_pool_of_the_pattern(self) -> None:
        case, *_ = selected(["--only", "steady", "--set", "idle_seconds=5", "--set", "batch_wakes=false"])
        assert case.pool() == PoolSettings(max=40, idle_seconds=5, batch_wakes=False)

    def test_a_sweep_has_one_row_per_value(self) -> None:
        found = selected(["--only", "steady", "--scalers", "rerankq", "--sweep", "target_drain_seconds=5,30"])
        assert [(case.pool().target_drain_seconds, case.varied) for case in found] == [
            (5, "target_drain_seconds=5"),
            (30, "target_drain_seconds=30"),
        ]

    def test_the_start_time_can_be_swept(self) -> None:
        found = selected(["--only", "steady", "--scalers", "rerankq", "--sweep", "start_seconds=5,60"])
        assert [case.plan.start_seconds for case in found] == [5, 60]

    @pytest.mark.parametrize(
        ("invalid", "reason"),
        [
            (["--only", "weekly"], "invalid choice: 'weekly'"),
            (["--scalers", "magic"], "invalid choice: 'magic'"),
            (["--set", "idle_seconds"], "expected NAME=VALUE"),
            (["--set", "idle=5"], "idle: Extra inputs are not permitted"),
            (["--set", "min=5", "--set", "max=2"], "max: .*must not be below min"),
            (["--sweep", "idle_seconds=1,x"], "expected NAME=V1,V2 with numbers"),
            (["--sweep", "idle_seconds=-1"], "idle_seconds: Input should be greater"),
            (["--rate", "0"], "must be above 0"),
            (["--start-seconds", "inf"], "must be above 0"),
            (["--recorded", "/no/such/file.csv"], "No such file"),
        ],
    )
    def test_an_invalid_option_is_rejected(
        self, invalid: list[str], reason: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as rejected:
            parse(invalid)
        assert rejected.value.code == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert re.search(reason, message), message

    def test_the_help_names_patterns_and_settings(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse(["--help"])
        output = capsys.readouterr().out
        assert "one call an hour" in output
        assert "target_drain_seconds" in output


class TestRun:
    def test_one_call_per_hour_waits_for_a_start_and_costs_the_idle_time(self) -> None:
        (case,) = selected(["--only", "hourly", "--scalers", "rerankq", "--start-seconds", "10"])
        row = simulate_scaling.simulate(case, seed=1)
        assert (row.wait_p50, row.wait_p99, row.starts, row.most_workers) == (10.3, 10.3, 48, 1)
        assert row.worker_seconds == pytest.approx(48 * (10 + 1 + 300), rel=0.01)

    def test_the_same_options_print_the_same_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--only", "bursty"]
        main(arguments)
        first = capsys.readouterr().out
        main(arguments)
        assert capsys.readouterr().out == first

    def test_a_fleet_of_hundreds_is_simulated(self) -> None:
        (case,) = selected(["--only", "nightly", "--scalers", "rerankq"])
        row = simulate_scaling.simulate(case, seed=1)
        assert (row.most_workers, row.unfinished) == (200, 0)
        assert row.batch_last is not None
        assert row.batch_last < 600

    def test_batch_work_that_never_finds_a_worker_is_marked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "batch.csv"
        path.write_text("1,10,4000,batch\n")
        main(["--recorded", str(path), "--scalers", "rerankq", "--set", "batch_wakes=false"])
        assert "- | - | - | - | -, 1 unfinished | 0 | 0 | 0 |" in capsys.readouterr().out

    def test_a_named_run_writes_its_rows_and_chart(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(simulate_scaling, "RESULTS", tmp_path)
        main(["--only", "hourly", "--name", "mine", "--seed", "3"])
        content = json.loads((tmp_path / "mine.json").read_text())
        assert content["options"]["seed"] == 3
        assert [row["scaler"] for row in content["rows"]] == ["rerankq", "kubernetes", "keda", "always-on"]
        assert ET.fromstring((tmp_path / "mine.svg").read_text()).tag == f"{SVG}svg"


def outcome(waits: list[float], cost: float) -> Outcome:
    return Outcome(waits=waits, batch=[50.0, 100.0], worker_seconds=cost, starts=3, most_workers=2)


class TestReport:
    def test_percentiles_are_values_that_occurred(self) -> None:
        row = scaling_report.summarize(
            "t", "rerankq", "", outcome([float(number) for number in range(200, 0, -1)], 1.0)
        )
        assert (row.wait_p50, row.wait_p99, row.late) == (100.0, 198.0, 0.7)
        assert (row.batch_p50, row.batch_last) == (50.0, 100.0)

    def test_traffic_without_a_class_has_no_values_for_it(self) -> None:
        row = scaling_report.summarize("t", "rerankq", "", Outcome())
        assert (row.wait_p50, row.wait_p99, row.late, row.batch_p50, row.batch_last) == (None,) * 5

    def test_dots_are_placed_by_value_within_the_chart(self) -> None:
        rows = [
            scaling_report.summarize(traffic, scaler, "", outcome([wait], cost))
            for traffic, scaler, wait, cost in [
                ("a", "rerankq", 0.0, 1000.0),
                ("a", "keda", 10.0, 5000.0),
                ("b", "rerankq", 300.0, 2e6),
                ("b", "always-on", 1.0, 9e6),
            ]
        ]
        root = ET.fromstring(scaling_chart.waits_and_costs(rows))
        _, _, width, height = map(float, root.get("viewBox", "").split())
        dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter(f"{SVG}circle")]
        waits, costs = dots[3:7], dots[7:]
        assert waits[0][0] < waits[3][0] < waits[1][0] < waits[2][0]
        assert [x for x, _ in costs] == sorted(x for x, _ in costs)
        assert waits[0][1] == waits[1][1] < waits[2][1] == waits[3][1]
        assert all(0 < x < width and 0 < y < height for x, y in dots)

    def test_a_chart_without_rows_is_rejected(self) -> None:
        with pytest.raises(ValueError, match="no data to draw"):
            scaling_chart.waits_and_costs([])
