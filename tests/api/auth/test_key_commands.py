import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from api.__main__ import main
from api.auth.authenticator import Authenticator
from api.auth.key_file import KeyFile
from api.auth.key_store import KeyStore, Scope
from shared.keys import service_keys
from shared.owner_limits import OwnerTerms
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


def test_show_prints_the_limits_and_never_the_digest(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--requests-per-second", "2.5", "--pairs-per-minute", "600", "--unfinished-jobs", "9"]
    limits += ["--batch-tokens", "1000"]
    arguments = ["keys", "create", "ci", "--weight", "3", "--expires-in-days", "1", "--scopes", "jobs, admin", *limits]
    assert main(["--redis-url", redis_url, *arguments]) == 0
    key_id = capsys.readouterr().out.split("-")[1]
    assert main(["--redis-url", redis_url, "keys", "show", "ci"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["expires"] > shown["created"]
    assert shown == {
        "id": key_id,
        "name": "ci",
        "created": shown["created"],
        "expires": shown["expires"],
        "scopes": ["jobs", "admin"],
        "weight": 3.0,
        "limits": {
            "requests_per_second": 2.5,
            "pairs_per_minute": 600,
            "pending_tokens": None,
            "unfinished_jobs": 9,
            "batch_tokens": 1000,
        },
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--scopes", "rerank,all"),
        ("--weight", "0"),
        ("--weight", "inf"),
        ("--pairs-per-minute", "1.5"),
        ("--unfinished-jobs", "-1"),
    ],
)
def test_an_invalid_limit_exits_with_2(
    redis_url: str, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--redis-url", redis_url, "keys", "create", "ci", option, value])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


async def test_rotate_replaces_the_secret_and_keeps_the_rest(
    redis_url: str, capsys: pytest.CaptureFixture[str], async_client: Any
) -> None:
    store = KeyStore(async_client)
    old = await store.create("ci", OwnerTerms(weight=2.0))
    await asyncio.to_thread(main, ["--redis-url", redis_url, "keys", "rotate", "ci"])
    new = capsys.readouterr().out.strip()
    (record,) = await store.list()
    assert (record.matches(old), record.matches(new), record.terms.weight) == (False, True, 2.0)
    assert new.split("-")[1] == old.split("-")[1]


@pytest.mark.parametrize("action", ["show", "rotate"])
def test_an_unknown_key_exits_with_1(redis_url: str, capsys: pytest.CaptureFixture[str], action: str) -> None:
    assert main(["--redis-url", redis_url, "keys", action, "ci"]) == 1
    assert capsys.readouterr().err == "api: there is no key 'ci'\n"


def test_list_marks_expired_keys(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--redis-url", redis_url, "keys", "create", "old", "--expires-in-days", "0.000001"])
    main(["--redis-url", redis_url, "keys", "create", "new", "--expires-in-days", "1"])
    capsys.readouterr()
    time.sleep(0.2)
    main(["--redis-url", redis_url, "keys", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[2:] for line in sorted(lines, key=len)] == [["new"], ["old", "(expired)"]]


async def test_an_entry_is_printed_for_the_file_and_stored_nowhere(
    redis_url: str, capsys: pytest.CaptureFixture[str], redis_client: Any, tmp_path: Path, async_client: Any
) -> None:
    arguments = ["keys", "create", "ci", "--entry", "--scopes", "admin", "--weight", "2", "--pairs-per-minute", "9"]
    assert await asyncio.to_thread(main, ["--redis-url", redis_url, *arguments]) == 0
    printed = capsys.readouterr()
    key = printed.err.split()[-1]
    assert key not in printed.out
    assert not redis_client.keys()
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + printed.out)
    (record,) = KeyFile(path).records()
    assert record.matches(key)
    assert (record.name, record.scopes, record.terms.weight, record.terms.limits.pairs_per_minute) == (
        "ci",
        ("admin",),
        2.0,
        9,
    )
    authenticator = Authenticator(KeyStore(async_client), always_required=False, file=KeyFile(path))
    assert await authenticator.owner(f"Bearer {key}", Scope.ADMIN) == record.id
