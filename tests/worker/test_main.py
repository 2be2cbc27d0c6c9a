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
def restored_sigterm() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
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


def test_an_unknown_engine_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--engine", "unknown"])
    assert caught.value.code == 2
    assert "invalid choice: 'unknown'" in capsys.readouterr().err


class TestChooseModel:
    @pytest.mark.parametrize(
        ("model", "engine", "expected"),
        [
            (None, None, ("first", "lexical")),
            ("one", None, ("first", "lexical")),
            ("second", None, ("second", "vllm")),
            ("second", "lexical", ("second", "lexical")),
        ],
    )
    def test_the_settings_choose_the_model_and_may_override_its_engine(
        self, models_file: Path, model: str | None, engine: str | None, expected: tuple[str, str]
    ) -> None:
        spec = choose_model(WorkerSettings(models_file=models_file, model=model, engine=engine))
        assert (spec.name, spec.engine) == expected

    def test_an_unknown_model_is_rejected(self, models_file: Path) -> None:
        with pytest.raises(ModelNotFound):
            choose_model(WorkerSettings(models_file=models_file, model="third"))

    def test_a_missing_models_file_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError):
            choose_model(WorkerSettings(models_file=tmp_path / "missing.yaml"))


class TestExitStatus:
    def test_an_unknown_model_exits_with_status_2_and_one_line(
        self, models_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--models-file", str(models_file), "--model", "third"]) == 2
        assert error_line(capsys) == "worker: model 'third' is not served here; served: first, second, broken\n"

    def test_a_missing_models_file_exits_with_status_2_and_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--models-file", str(tmp_path / "missing.yaml")]) == 2
        assert error_line(capsys).startswith("worker: cannot read the models file ")

    @pytest.mark.parametrize("concurrency", ["0", "5000"])
    def test_an_invalid_setting_exits_with_status_2_and_one_line(
        self, capsys: pytest.CaptureFixture[str], concurrency: str
    ) -> None:
        assert main(["--concurrency", concurrency]) == 2
        assert error_line(capsys).startswith("worker: RERANKQ_CONCURRENCY: ")

    @pytest.mark.usefixtures("restored_sigterm")
    def test_an_engine_that_cannot_start_exits_with_status_1_and_stores_the_reason(
        self, models_file: Path, redis_url: str, redis_client: Any
    ) -> None:
        assert main(["--models-file", str(models_file), "--model", "broken", "--redis-url", redis_url]) == 1
        (beat,) = read_heartbeats(redis_client.hgetall(pool_keys.workers("broken")))
        assert beat.state is WorkerState.FAILED
        assert beat.reason == "engine_args.delay_seconds must be a number of seconds, 0 or more"
