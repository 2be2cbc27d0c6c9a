from pathlib import Path

import pytest

from client.batches.state import BatchState, StateFile
from client.documents import UsageError


def test_state_is_stored_beside_the_output_and_deleted(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "out.jsonl")
    assert file.load() is None
    state = BatchState("http://service", source="/in", digest="d", options={"top_n": 1}, metadata={"a": "b"})
    file.save(state)
    state.batch_id = "batch_1"
    file.save(state)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.batch"]
    assert file.load() == state
    file.delete()
    file.delete()
    assert file.load() is None


@pytest.mark.parametrize("text", ["", "[]", '{"url": "u", "unknown": 1}', "{}"])
def test_damaged_state_is_a_usage_error(tmp_path: Path, text: str) -> None:
    file = StateFile(tmp_path / "out.jsonl")
    file.path.write_text(text)
    with pytest.raises(UsageError, match=r"out\.jsonl\.batch: .*; delete it to start again"):
        file.load()


def test_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        StateFile(tmp_path / "nowhere" / "out.jsonl").save(BatchState("http://service"))
