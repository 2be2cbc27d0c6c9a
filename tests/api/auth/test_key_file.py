import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest

from api.auth.key_file import KeyFile
from api.auth.key_store import KeyRecord, make_key
from shared.errors import ConfigurationError


def write(path: Path, *records: KeyRecord) -> None:
    path.write_text(json.dumps({"keys": [asdict(record) for record in records]}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_a_changed_file_is_read_again(path: Path) -> None:
    first, second = make_key("one")[1], make_key("two")[1]
    write(path, first)
    keys = KeyFile(path)
    assert keys.records() == [first]
    replacement = path.with_suffix(".new")
    write(replacement, first, second)
    replacement.rename(path)
    assert keys.records() == [first, second]


@pytest.mark.parametrize("content", ["keys: [", "keys: [{}]", "keys: 5", "[]", "", "\x00"])
def test_an_invalid_file_is_rejected_at_the_start_and_ignored_later(
    path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = make_key("one")[1]
    write(path, record)
    keys = KeyFile(path)
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"keys\.yaml"):
        KeyFile(path)
    with caplog.at_level(logging.ERROR):
        assert keys.records() == keys.records() == [record]
    assert len(caplog.records) == 1


def test_a_missing_file_is_rejected_at_the_start_and_keeps_the_keys_later(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyFile(path)
    record = make_key("one")[1]
    write(path, record)
    keys = KeyFile(path)
    path.unlink()
    assert keys.records() == [record]


def test_ids_are_unique(path: Path) -> None:
    record = make_key("one")[1]
    write(path, record, record)
    with pytest.raises(ConfigurationError, match="two keys have the same id"):
        KeyFile(path)


def test_the_error_names_the_field(path: Path) -> None:
    path.write_text("keys: [{id: a, name: b, created: 1, digest: c, scopes: [all]}]")
    with pytest.raises(ConfigurationError, match=r"keys\.0\.scopes\.0"):
        KeyFile(path)
