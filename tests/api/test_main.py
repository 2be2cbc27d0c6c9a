import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from api.__main__ import is_loopback, main, parse_arguments
from api.settings import ApiSettings
from shared.errors import ConfigurationError
from tests.shared.support import dead_redis_url


@pytest.fixture
def models_file(tmp_path: Path) -> str:
    path = tmp_path / "models.yaml"
    path.write_text("models: [{name: m, engine: lexical}]")
    return str(path)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of uvicorn.run, which does nothing."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: calls.append(options | {"app": app}))
    return calls


class TestArguments:
    def test_default_command_is_serve(self) -> None:
        options = parse_arguments([])
        assert options.command == "serve"
        assert (options.host, options.port, options.redis_url, options.allow_anonymous) == (None, None, None, None)

    def test_serve_options(self) -> None:
        options = parse_arguments(["serve", "--host", "::1", "--port", "9000", "--allow-anonymous"])
        assert (options.host, options.port, options.allow_anonymous) == ("::1", 9000, True)

    @pytest.mark.parametrize(
        ("arguments", "command", "name"),
        [(["create", "ci"], "create", "ci"), (["list"], "list", None), (["revoke", "ci"], "revoke", "ci")],
    )
    def test_key_commands(self, arguments: list[str], command: str, name: str | None) -> None:
        options = parse_arguments(["--redis-url", "redis://x", "keys", *arguments])
        assert (options.command, getattr(options, "name", None)) == (command, name)
        assert options.redis_url == "redis://x"

    @pytest.mark.parametrize("arguments", [["keys"], ["keys", "create"], ["nope"], ["serve", "--port", "many"]])
    def test_invalid_command_line_exits_with_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            parse_arguments(arguments)
        assert caught.value.code == 2
        assert "usage: python -m api" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "example.org", "localhost.evil", ""])
def test_all_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


class TestServing:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "api.example"])
    def test_serving_beyond_loopback_requires_a_key(
        self,
        redis_url: str,
        models_file: str,
        served: list[dict[str, Any]],
        capsys: pytest.CaptureFixture[str],
        host: str,
    ) -> None:
        assert main(["--redis-url", redis_url, "serve", "--host", host, "--models-file", models_file]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"api: will not listen on {host}: no API key is configured")
        assert message.count("\n") == 1
        assert served == []

    @pytest.mark.parametrize(
        "arguments", [["serve"], ["serve", "--host", "::1"], ["serve", "--host", "0.0.0.0", "--allow-anonymous"]]
    )
    def test_loopback_or_allow_anonymous_needs_no_key(
        self, redis_url: str, models_file: str, served: list[dict[str, Any]], arguments: list[str]
    ) -> None:
        assert main(["--redis-url", redis_url, *arguments, "--models-file", models_file, "--port", "0"]) == 0
        assert len(served) == 1

    def test_keep_alive_is_longer_than_a_load_balancers(
        self, redis_url: str, models_file: str, served: list[dict[str, Any]]
    ) -> None:
        assert main(["--redis-url", redis_url, "serve", "--models-file", models_file]) == 0
        assert served[0]["timeout_keep_alive"] > 60

    def test_with_a_key_any_address_is_served(
        self, redis_url: str, models_file: str, served: list[dict[str, Any]]
    ) -> None:
        assert main(["--redis-url", redis_url, "keys", "create", "ci"]) == 0
        arguments = ["serve", "--host", "0.0.0.0", "--port", "8123", "--models-file", models_file]
        assert main(["--redis-url", redis_url, *arguments]) == 0
        assert [(call["host"], call["port"]) for call in served] == [("0.0.0.0", 8123)]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--port", "70000"], "RERANKQ_PORT: "),
            (["--processes", "0"], "RERANKQ_PROCESSES: "),
            (["--models-file", "/nowhere/models.yaml"], "cannot read the models file /nowhere/models.yaml"),
        ],
    )
    def test_configuration_error_prints_one_line_and_exits_with_2(
        self, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        assert main(["serve", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"api: {message}")
        assert error.count("\n") == 1
        assert served == []

    def test_unreachable_redis_prevents_serving_beyond_loopback(
        self, models_file: str, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["serve", "--host", "0.0.0.0", "--models-file", models_file]
        assert main(["--redis-url", dead_redis_url(), *arguments]) == 2
        assert capsys.readouterr().err == "api: the job store cannot be reached; try again\n"
        assert served == []


class TestProcesses:
    def test_default_is_one(self) -> None:
        settings = ApiSettings.from_environment({})
        assert settings.processes == 1
        assert settings.per_process(settings.max_waiting) == settings.max_waiting

    def test_each_process_has_an_equal_part_of_a_limit(self) -> None:
        settings = ApiSettings.from_environment({"RERANKQ_PROCESSES": "4", "RERANKQ_MAX_WAITING": "10"})
        assert settings.per_process(settings.max_waiting) == 2

    @pytest.mark.parametrize("variable", ["RERANKQ_MAX_WAITING", "RERANKQ_MAX_CONNECTIONS"])
    def test_limit_that_leaves_nothing_for_a_process_is_rejected(self, variable: str) -> None:
        with pytest.raises(ConfigurationError, match=f"{variable}: must be at least RERANKQ_PROCESSES, which is 4"):
            ApiSettings.from_environment({"RERANKQ_PROCESSES": "4", variable: "3"})

    def test_port_in_use_prints_one_line_and_exits_with_2(
        self, redis_url: str, models_file: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            arguments = ["serve", "--processes", "2", "--port", port, "--models-file", models_file]
            assert main(["--redis-url", redis_url, *arguments]) == 2
        assert capsys.readouterr().err == f"api: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_unknown_root_dialect_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="RERANKQ_ROOT_DIALECT: must be one of superset, jina, cohere, tei"):
        ApiSettings.from_environment({"RERANKQ_ROOT_DIALECT": "klingon"})
    assert ApiSettings.from_environment({"RERANKQ_ROOT_DIALECT": "tei"}).root_dialect == "tei"
