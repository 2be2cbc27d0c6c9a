"""The options of `make bench`."""

import pytest

from bench.__main__ import clear_settings, parse


def test_a_complete_run_has_two_rounds_and_a_quick_one_is_short() -> None:
    complete, quick = parse([]), parse(["--quick"])
    assert (complete.rounds, complete.seconds, complete.backlog) == (2, 8.0, 5000)
    assert (quick.rounds, quick.seconds, quick.backlog) == (1, 2.0, 1000)


def test_options_override_quick() -> None:
    options = parse(["--quick", "--only", "a", "k", "--seconds", "3", "--rounds", "2"])
    assert (options.only, options.seconds, options.rounds) == (["a", "k"], 3.0, 2)


@pytest.mark.parametrize("invalid", [["--only", "z"], ["--rounds", "0"], ["--seconds", "0.1"], ["--backlog", "-1"]])
def test_an_invalid_option_is_rejected(invalid: list[str]) -> None:
    with pytest.raises(SystemExit) as rejected:
        parse(invalid)
    assert rejected.value.code == 2


def test_the_help_explains_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    output = capsys.readouterr().out
    assert "process start to first score" in output
    assert "bench/README.md" in output


def test_settings_in_the_environment_reach_neither_server() -> None:
    environment = {"RERANKQ_CONCURRENCY": "1", "VLLM_LOGGING_LEVEL": "DEBUG", "REDIS_URL": "redis://x", "PATH": "/bin"}
    clear_settings(environment)
    assert environment == {"PATH": "/bin"}
