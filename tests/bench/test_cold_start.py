"""The cold start benchmark: its table, files, chart and options."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.cold_start import PLAIN, STANDBY, Measured, parse, table, write
from bench.cycle import Cycle, Sample, changes
from bench.cycle_chart import zero_one_zero
from bench.idle_stack import Start

CYCLE = Cycle(
    samples=[
        Sample(0.0, waiting=0, starting=0, ready=0),
        Sample(2.0, waiting=1, starting=1, ready=0),
        Sample(7.0, waiting=3, starting=0, ready=1),
        Sample(8.0, waiting=0, starting=0, ready=1),
        Sample(13.0, waiting=0, starting=0, ready=0, stopping=1),
        Sample(13.2, waiting=0, starting=0, ready=0),
        Sample(15.0, waiting=0, starting=0, ready=0),
    ],
    calls=[(2.0, 5.9), (3.0, 4.9), (9.0, 0.014)],
    idle_seconds=5.0,
)


@pytest.fixture
def measured() -> Measured:
    found = Measured(theirs_first=30.0, ours_first=Start(7.5, {}, 0.02), theirs=[20.0, 22.0, 24.0], cycle=CYCLE)
    found.ours[PLAIN] = [
        Start(6.0, {"wake": 0.1, "import": 4.4, "first score": 0.02}, 0.015),
        Start(6.6, {"wake": 0.1, "import": 4.8, "first score": 0.02}, 0.015),
    ]
    found.ours[STANDBY] = [Start(4.4, {"wake": 0.1, "first score": 0.02}, 0.015)]
    return found


def test_the_ratio_compares_the_medians(measured: Measured) -> None:
    assert measured.ratio(PLAIN) == pytest.approx(6.3 / 22)
    assert Measured().ratio(PLAIN) is None


def test_the_table_has_verdicts_and_the_time_of_each_stage(measured: Measured) -> None:
    lines = table(measured).splitlines()
    assert "| vLLM's server | 22.00 | 1.00 | | | 20.00, 22.00, 24.00 |" in lines
    assert "| rerankq, plain | 6.30 | 0.286 | <= 0.40 | met | 6.00, 6.60 |" in lines
    assert "| rerankq, standby | 4.40 | 0.200 | <= 0.15 | missed | 4.40 |" in lines
    assert "| vLLM's server, nothing cached | 30.00 | | | | |" in lines
    assert "| rerankq, plain, nothing cached | 7.50 | | | | |" in lines
    assert "| stage, median s | plain | standby |" in lines
    assert "| import | 4.60 | 0.00 |" in lines
    assert "| the same call again | 0.015 | 0.015 |" in lines


def test_the_table_lists_failures() -> None:
    assert table(Measured(failures=["rerankq, plain: no standby"])).endswith("Failed:\n- rerankq, plain: no standby")


def test_the_files_hold_every_start_and_the_chart(measured: Measured, tmp_path: Path) -> None:
    paths = write(measured, tmp_path, "cold", {"rounds": 3})
    assert [path.name for path in paths] == ["cold.json", "zero_one_zero.svg"]
    content = json.loads(paths[0].read_text())
    assert content["ratios"] == {PLAIN: pytest.approx(6.3 / 22), STANDBY: pytest.approx(0.2)}
    assert content["ours"][PLAIN][1]["stages"]["import"] == 4.8
    assert content["cycle"]["samples"][2] == {"at": 7.0, "waiting": 3, "starting": 0, "ready": 1, "stopping": 0}
    assert (content["theirs_first"], content["ours_first"]["seconds"]) == (30.0, 7.5)


def test_only_changed_samples_and_the_last_one_are_kept() -> None:
    idle = [Sample(at / 20, waiting=0, starting=0, ready=0) for at in range(10)]
    starting = [Sample(1 + at / 20, waiting=1, starting=1, ready=0) for at in range(10)]
    assert changes([*idle, *starting]) == [idle[0], starting[0], starting[-1]]
    assert changes([*idle, starting[0]]) == [idle[0], starting[0]]
    assert changes([]) == []


class TestChart:
    def test_the_svg_has_both_panels(self) -> None:
        svg = zero_one_zero(CYCLE)
        ElementTree.fromstring(svg)
        for word in ("requests waiting", "workers", "starting", "ready", "seconds", "takes 5.9 s", "14 ms"):
            assert word in svg

    @pytest.mark.parametrize("style", ["waiting", "starting", "ready", "stopping"])
    def test_each_state_has_one_area(self, style: str) -> None:
        assert zero_one_zero(CYCLE).count(f'class="area {style}"') == 1

    def test_a_worker_that_runs_until_the_end_is_drawn(self) -> None:
        assert 'class="area ready"' in zero_one_zero(Cycle(CYCLE.samples[:4], CYCLE.calls, 5.0))

    def test_a_cycle_without_samples_is_rejected(self) -> None:
        with pytest.raises(ValueError, match="no data to draw"):
            zero_one_zero(Cycle([], [], 5.0))


class TestOptions:
    def test_the_defaults(self) -> None:
        options = parse([])
        assert (options.rounds, options.starts, options.name) == (3, 2, "cold_start")

    def test_quick_is_one_round_with_one_start(self) -> None:
        options = parse(["--quick", "--rounds", "9"])
        assert (options.rounds, options.starts) == (1, 1)

    @pytest.mark.parametrize("invalid", [["--rounds", "0"], ["--starts", "none"], ["--what"]])
    def test_an_invalid_option_is_rejected(self, invalid: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            parse(invalid)
        assert caught.value.code == 2
        assert capsys.readouterr().err
