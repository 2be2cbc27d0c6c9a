from typing import Any

import pytest

from api.__main__ import main
from shared.keys import service_keys
from tests.shared.support import dead_redis_url


def test_create_prints_only_the_key_and_only_once(
    redis_url: str, redis_client: Any, capsys: pytest.CaptureFixture[str]
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
def test_key_is_revoked_by_name_or_id(redis_url: str, capsys: pytest.CaptureFixture[str], by: str) -> None:
    main(["--redis-url", redis_url, "keys", "create", "ci"])
    name = "ci" if by == "name" else capsys.readouterr().out.split("-")[1]
    assert main(["--redis-url", redis_url, "keys", "revoke", name]) == 0
    capsys.readouterr()
    assert main(["--redis-url", redis_url, "keys", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_revoking_an_unknown_key_exits_with_1(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--redis-url", redis_url, "keys", "revoke", "ci"]) == 1
    assert capsys.readouterr().err == "api: there is no key 'ci'\n"


@pytest.mark.parametrize("name", ["", "a/b", "ci"])
def test_invalid_or_taken_name_exits_with_2(redis_url: str, capsys: pytest.CaptureFixture[str], name: str) -> None:
    main(["--redis-url", redis_url, "keys", "create", "ci"])
    capsys.readouterr()
    assert main(["--redis-url", redis_url, "keys", "create", name]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("api: ")


@pytest.mark.parametrize("action", [["create", "ci"], ["list"], ["revoke", "ci"]])
def test_unreachable_redis_prints_one_line_and_exits_with_2(
    capsys: pytest.CaptureFixture[str], action: list[str]
) -> None:
    assert main(["--redis-url", dead_redis_url(), "keys", *action]) == 2
    assert capsys.readouterr().err == "api: the job store cannot be reached; try again\n"
