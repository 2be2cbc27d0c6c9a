from pathlib import Path
from typing import Any

import pytest
import uvicorn

from api.__main__ import is_loopback, main, parse_arguments
from api.settings import ApiSettings
from shared.errors import ConfigurationError
from shared.keys import service_keys
from tests.shared.support import dead_redis_url


@pytest.fixture
def models_file(tmp_path: Path) -> str:
    path = tmp_path / "models.yaml"
    path.write_text("models: [{name: m, engine: lexical}]")
    return str(path)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What uvicorn was told to serve; it does not."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: calls.append(options | {"app": app}))
    return calls


class TestArguments:
    def test_without_any_it_serves(self) -> None:
        options = parse_arguments([])
        assert options.command == "serve"
        assert (options.host, options.port, options.redis_url, options.allow_anonymous) == (None, None, None, None)

    def test_serve_has_options(self) -> None:
        options = parse_arguments(["serve", "--host", "::1", "--port", "9000", "--allow-anonymous"])
        assert (options.host, options.port, options.allow_anonymous) == ("::1", 9000, True)

    @pytest.mark.parametrize(
        ("arguments", "command", "name"),
        [(["create", "ci"], "create", "ci"), (["list"], "list", None), (["revoke", "ci"], "revoke", "ci")],
    )
    def test_keys_has_actions(self, arguments: list[str], command: str, name: str | None) -> None:
        options = parse_arguments(["--redis-url", "redis://x", "keys", *arguments])
        assert (options.command, getattr(options, "name", None)) == (command, name)
        assert options.redis_url == "redis://x"

    @pytest.mark.parametrize("arguments", [["keys"], ["keys", "create"], ["nope"], ["serve", "--port", "many"]])
    def test_a_wrong_command_line_is_status_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            parse_arguments(arguments)
        assert caught.value.code == 2
        assert "usage: python -m api" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "example.org", "localhost.evil", ""])
def test_everything_else_may_be_reached_by_others(host: str) -> None:
    assert not is_loopback(host)


class TestServing:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "api.example"])
    def test_beyond_loopback_nothing_is_served_without_a_key(
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
    def test_on_loopback_or_when_it_is_allowed_no_key_is_needed(
        self, redis_url: str, models_file: str, served: list[dict[str, Any]], arguments: list[str]
    ) -> None:
        assert main(["--redis-url", redis_url, *arguments, "--models-file", models_file, "--port", "0"]) == 0
        assert len(served) == 1

    def test_an_idle_connection_outlives_a_load_balancers_minute(
        self, redis_url: str, models_file: str, served: list[dict[str, Any]]
    ) -> None:
        assert main(["--redis-url", redis_url, "serve", "--models-file", models_file]) == 0
        assert served[0]["timeout_keep_alive"] > 60

    def test_with_a_key_it_is_served_everywhere(
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
            (["--models-file", "/nowhere/models.yaml"], "cannot read the models file /nowhere/models.yaml"),
        ],
    )
    def test_a_mistake_is_one_line_and_status_2(
        self, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        assert main(["serve", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"api: {message}")
        assert error.count("\n") == 1
        assert served == []

    def test_without_redis_nobody_knows_whether_there_is_a_key(
        self, models_file: str, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["serve", "--host", "0.0.0.0", "--models-file", models_file]
        assert main(["--redis-url", dead_redis_url(), *arguments]) == 2
        assert capsys.readouterr().err == "api: the job store cannot be reached; try again\n"
        assert served == []


class TestKeys:
    def test_a_key_is_printed_alone_and_once(
        self, redis_url: str, redis_client: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--redis-url", redis_url, "keys", "create", "search box"]) == 0
        printed = capsys.readouterr()
        key = printed.out.strip()
        assert printed.out == f"{key}\n"
        assert key.startswith("rq-")
        assert "shown once" in printed.err
        assert key.split("-", 2)[2].encode() not in b"".join(redis_client.hgetall(service_keys.API_KEYS).values())

        assert main(["--redis-url", redis_url, "keys", "list"]) == 0
        listed = capsys.readouterr().out
        key_id = key.split("-")[1]
        assert listed.startswith(key_id)
        assert listed.endswith("search box\n")
        assert key not in listed

    @pytest.mark.parametrize("by", ["name", "id"])
    def test_a_key_is_revoked(self, redis_url: str, capsys: pytest.CaptureFixture[str], by: str) -> None:
        main(["--redis-url", redis_url, "keys", "create", "ci"])
        name = "ci" if by == "name" else capsys.readouterr().out.split("-")[1]
        assert main(["--redis-url", redis_url, "keys", "revoke", name]) == 0
        capsys.readouterr()
        assert main(["--redis-url", redis_url, "keys", "list"]) == 0
        assert capsys.readouterr().out == ""

    def test_a_key_that_is_not_there_cannot_be_revoked(
        self, redis_url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--redis-url", redis_url, "keys", "revoke", "ci"]) == 1
        assert capsys.readouterr().err == "api: there is no key 'ci'\n"

    @pytest.mark.parametrize("name", ["", "a/b", "ci"])
    def test_a_bad_or_taken_name_is_status_2(
        self, redis_url: str, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        main(["--redis-url", redis_url, "keys", "create", "ci"])
        capsys.readouterr()
        assert main(["--redis-url", redis_url, "keys", "create", name]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("api: ")

    @pytest.mark.parametrize("action", [["create", "ci"], ["list"], ["revoke", "ci"]])
    def test_without_redis_it_is_one_line_and_status_2(
        self, capsys: pytest.CaptureFixture[str], action: list[str]
    ) -> None:
        assert main(["--redis-url", dead_redis_url(), "keys", *action]) == 2
        assert capsys.readouterr().err == "api: the job store cannot be reached; try again\n"


def test_a_dialect_for_the_root_that_nobody_speaks_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="RERANKQ_ROOT_DIALECT: must be one of superset, jina, cohere, tei"):
        ApiSettings.from_environment({"RERANKQ_ROOT_DIALECT": "klingon"})
    assert ApiSettings.from_environment({"RERANKQ_ROOT_DIALECT": "tei"}).root_dialect == "tei"
