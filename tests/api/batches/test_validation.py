"""What a look at the whole input finds."""

import json
from collections.abc import AsyncIterator
from typing import Any

from api.batches.input_lines import InputLine
from api.batches.line_requests import LineParser
from api.batches.validation import MAX_ERRORS, CustomIds, InputTotals, validate
from api.dialects.registry import SUPERSET
from shared.models import ModelRegistry, ModelSpec
from tests.api.payloads.support import MIB, memory_limit

MODELS = ModelRegistry([ModelSpec(name="small", aliases=["tiny"]), ModelSpec(name="large")])
BODY = {"query": "panda", "documents": ["one", "two"]}


async def totals_of(*lines: Any, max_lines: int = 100) -> InputTotals:
    """The totals of these lines: objects or bytes, numbered from 1."""

    async def read() -> AsyncIterator[InputLine]:
        for number, line in enumerate(lines, 1):
            text = line if isinstance(line, bytes | None) else json.dumps(line).encode()
            yield InputLine(number, 100 * number, 100 * number + 100, text)

    parser = LineParser("/v1/rerank", None, SUPERSET, 1000)
    return await validate(read(), parser, MODELS, max_lines=max_lines)


async def test_lines_pairs_and_loads_are_counted() -> None:
    totals = await totals_of(BODY, BODY | {"model": "tiny"}, {"body": BODY | {"model": "large"}})
    assert (totals.lines, totals.pairs, totals.errors) == (3, 6, [])
    assert {model: pairs for model, (pairs, _) in totals.loads.items()} == {"small": 4, "large": 2}
    assert all(tokens > 2 for _, tokens in totals.loads.values())
    assert json.loads(totals.loads_json()) == {model: list(load) for model, load in totals.loads.items()}


async def test_bad_lines_do_not_fail_the_batch() -> None:
    totals = await totals_of(b"{", b"\xff", None, b"[]", {"custom_id": 7, **BODY}, BODY | {"model": "unknown"}, BODY)
    assert (totals.lines, totals.errors) == (7, [])
    assert (totals.pairs, totals.loads["small"][0]) == (4, 2)


async def test_input_without_lines_fails() -> None:
    totals = await totals_of()
    assert [(error.code, error.line) for error in totals.errors] == [("empty_file", None)]


async def test_repeated_custom_ids_are_named_by_their_lines() -> None:
    ids = ["a", "b", "a", "c", "b", "a"]
    totals = await totals_of(*({"custom_id": custom_id, **BODY} for custom_id in ids))
    assert [(error.code, error.line, error.param) for error in totals.errors] == [
        ("duplicate_custom_id", number, "custom_id") for number in (3, 5, 6)
    ]
    assert totals.errors[0].message == "the custom_id of line 3 is that of an earlier line"


async def test_custom_id_of_a_malformed_request_counts() -> None:
    totals = await totals_of({"custom_id": "a", "body": 7}, {"custom_id": "a", "body": BODY})
    assert [error.line for error in totals.errors] == [2]


async def test_only_the_first_errors_are_reported() -> None:
    totals = await totals_of(*[{"custom_id": "a"}] * (MAX_ERRORS + 10))
    assert [error.line for error in totals.errors] == list(range(2, MAX_ERRORS + 2))


async def test_too_many_lines_fail_at_the_first_one_that_is_too_many() -> None:
    assert (await totals_of(*[BODY] * 3, max_lines=3)).errors == []
    totals = await totals_of(*[BODY] * 9, max_lines=3)
    assert [(error.code, error.line) for error in totals.errors] == [("too_many_lines", 4)]
    assert totals.errors[0].message == "the input has more than 3 requests"


class TestCustomIds:
    def test_many_ids_take_little_memory(self) -> None:
        ids = CustomIds()
        with memory_limit(8 * MIB):
            for number in range(200_000):
                ids.add(f"request-{number}", number + 1)
            ids.add("request-5", 200_001)
            ids.add("request-199999", 200_002)
            assert ids.repeated() == [200_001, 200_002]

    def test_equal_ids_are_found_once_for_each_repetition(self) -> None:
        ids = CustomIds()
        for line, custom_id in enumerate(["a", "a", "b", "a", "b"], 1):
            ids.add(custom_id, line)
        assert ids.repeated() == [2, 4, 5]

    def test_any_text_is_an_id(self) -> None:
        ids = CustomIds()
        for line, custom_id in enumerate(["\ud800", "\udfff", "ä", "a\u0308", "", " ", "\ud800"], 1):
            ids.add(custom_id, line)
        assert ids.repeated() == [7]
