import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigurationError, ModelNotFound
from shared.keys import pool_keys
from shared.pools.heartbeats import WorkerState, read_heartbeats
from worker.__main__ import choose_model, main, parse_arguments
from worker.settings import WorkerSettings

MODELS = """
models:
  - {name: first, aliases: [one], engine: lexical}
  - {name: second}
  - {name: broken, engine: lexical, engine_args: {delay_seconds: soon}}
"""


@pytest.fixture
def models_file(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(MODELS)
    return path


@pytest.fixture
def old_signals() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def mistake(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_arguments_are_all_optional() -> None:
    options = vars(parse_arguments([]))
    assert options.pop("command") == "work"
    assert set(options.values()) == {None}
    given = parse_arguments(["--model", "m", "--engine", "lexical", "--concurrency", "2"])
    assert (given.model, given.engine, given.concurrency) == ("m", "lexical", 2)


def test_only_engines_that_exist_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--engine", "steam"])
    assert caught.value.code == 2
    assert "invalid choice: 'steam'" in capsys.readouterr().err


class TestChoosing:
    @pytest.mark.parametrize(
        ("model", "engine", "expected"),
        [
            (None, None, ("first", "lexical")),
            ("one", None, ("first", "lexical")),
            ("second", None, ("second", "vllm")),
            ("second", "lexical", ("second", "lexical")),
        ],
    )
    def test_the_settings_choose_the_model_and_may_change_its_engine(
        self, models_file: Path, model: str | None, engine: str | None, expected: tuple[str, str]
    ) -> None:
        spec = choose_model(WorkerSettings(models_file=models_file, model=model, engine=engine))
        assert (spec.name, spec.engine) == expected

    def test_an_unknown_model_is_refused(self, models_file: Path) -> None:
        with pytest.raises(ModelNotFound):
            choose_model(WorkerSettings(models_file=models_file, model="third"))

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError):
            choose_model(WorkerSettings(models_file=tmp_path / "nothing.yaml"))


class TestMistakes:
    def test_a_bad_model_name_is_status_2_and_one_line(
        self, models_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--models-file", str(models_file), "--model", "third"]) == 2
        assert mistake(capsys) == "worker: model 'third' is not served here; served: first, second, broken\n"

    def test_a_bad_models_file_is_status_2_and_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--models-file", str(tmp_path / "nothing.yaml")]) == 2
        assert mistake(capsys).startswith("worker: cannot read the models file ")

    @pytest.mark.parametrize("concurrency", ["0", "5000"])
    def test_a_bad_setting_is_status_2_and_one_line(self, capsys: pytest.CaptureFixture[str], concurrency: str) -> None:
        assert main(["--concurrency", concurrency]) == 2
        assert mistake(capsys).startswith("worker: RERANKQ_CONCURRENCY: ")

    @pytest.mark.usefixtures("old_signals")
    def test_an_engine_that_does_not_start_is_status_1_and_its_reason_is_kept(
        self, models_file: Path, redis_url: str, redis_client: Any
    ) -> None:
        assert main(["--models-file", str(models_file), "--model", "broken", "--redis-url", redis_url]) == 1
        (beat,) = read_heartbeats(redis_client.hgetall(pool_keys.workers("broken")))
        assert beat.state is WorkerState.FAILED
        assert beat.reason == "engine_args.delay_seconds must be a number of seconds, 0 or more"
