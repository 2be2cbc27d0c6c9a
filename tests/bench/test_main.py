"""The options of the benchmark."""

import pytest

from bench.__main__ import forget_settings, parse


def test_a_whole_run_has_two_rounds_and_a_quick_one_is_short() -> None:
    whole, quick = parse([]), parse(["--quick"])
    assert (whole.rounds, whole.seconds, whole.backlog) == (2, 8.0, 5000)
    assert (quick.rounds, quick.seconds, quick.backlog) == (1, 2.0, 1000)


def test_an_option_wins_over_quick() -> None:
    options = parse(["--quick", "--only", "a", "k", "--seconds", "3", "--rounds", "2"])
    assert (options.only, options.seconds, options.rounds) == (["a", "k"], 3.0, 2)


@pytest.mark.parametrize("wrong", [["--only", "z"], ["--rounds", "0"], ["--seconds", "0.1"], ["--backlog", "-1"]])
def test_a_wrong_option_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(wrong)
    assert refused.value.code == 2


def test_the_help_explains_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = capsys.readouterr().out
    assert "process start to first score" in said
    assert "bench/README.md" in said


def test_the_callers_own_settings_reach_neither_server() -> None:
    environment = {"RERANKQ_CONCURRENCY": "1", "VLLM_LOGGING_LEVEL": "DEBUG", "REDIS_URL": "redis://x", "PATH": "/bin"}
    forget_settings(environment)
    assert environment == {"PATH": "/bin"}
