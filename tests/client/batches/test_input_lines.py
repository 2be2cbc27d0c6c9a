from pathlib import Path

import pytest

from client.batches.input_lines import BatchLine, InputFile, row_text
from client.documents import UsageError

PLAIN = '{"query": "q", "documents": ["d"]}'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


def read(source: Path, text: str | bytes, **defaults: object) -> list[BatchLine]:
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(InputFile(source, defaults).lines())  # type: ignore[arg-type]


def test_blank_lines_count_but_are_not_yielded(source: Path) -> None:
    lines = read(source, f"\ufeff{PLAIN}\r\n \n\n{PLAIN}")
    assert [(line.number, line.request is not None) for line in lines] == [(1, True), (4, True)]


def test_both_forms_of_a_request_have_the_same_key(source: Path) -> None:
    openai = '{"custom_id": "a", "method": "POST", "url": "/v1/rerank", "body": ' + PLAIN + "}"
    first, second = read(source, f"{PLAIN}\n{openai}")
    assert first.key == second.key
    assert (first.custom_id, second.custom_id) == (None, "a")


def test_defaults_are_a_part_of_the_key_unless_the_line_overrides_them(source: Path) -> None:
    top_1, top_2 = PLAIN[:-1] + ', "top_n": 1}', PLAIN[:-1] + ', "top_n": null}'
    keys = [line.key for line in read(source, f"{PLAIN}\n{top_1}\n{top_2}", top_n=2)]
    assert keys[0] == keys[2] != keys[1]
    assert keys[1] == read(source, top_1)[0].key


@pytest.mark.parametrize(
    "text",
    ["no json", "[]", "7", '{"query": "q"}', '{"query": 1, "documents": []}', '{"body": null}', b"\xff", "[" * 100_000],
)
def test_line_that_is_not_a_request_is_an_error(source: Path, text: str | bytes) -> None:
    (line,) = read(source, text)
    assert (line.request, line.key) == (None, "")
    assert line.error.message.startswith("line 1 is not a request: ")


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        (PLAIN, PLAIN),
        (' {"custom_id": "a",  "query": "q", "documents": []} ', '{"custom_id": "a",  "query": "q", "documents": []}'),
        ('{"custom_id": 7, "query": "q", "documents": []}', '{"query": "q", "documents": []}'),
        ('{"custom_id": "", "query": "q", "documents": []}', '{"query": "q", "documents": []}'),
        (
            '{"custom_id": "a", "method": "POST", "url": "/v2/rerank", "body": {"query": "q", "documents": []}}',
            '{"body": {"query": "q", "documents": []}, "custom_id": "a"}',
        ),
    ],
)
def test_upload_has_no_url_and_only_valid_ids(source: Path, text: str, sent: str) -> None:
    (line,) = read(source, text)
    assert line.for_upload().decode() == sent


def test_row_can_hold_half_of_a_surrogate_pair(source: Path) -> None:
    (line,) = read(source, '{"custom_id": "\\ud800", "query": "q", "documents": []}')
    assert b'"\\ud800"' in row_text(line, ranking={})


def test_missing_file_is_a_usage_error(source: Path) -> None:
    for use in (lambda file: list(file.lines()), InputFile.digest, InputFile.is_large):
        with pytest.raises(UsageError, match="cannot read"):
            use(InputFile(source, {}))
