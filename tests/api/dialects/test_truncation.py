"""What callers say about texts that are too long, in the fields of every system."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.base import Dialect
from api.dialects.nvidia import NvidiaDialect
from api.dialects.pinecone import PineconeDialect
from api.dialects.registry import FAMILIES
from api.dialects.superset import SupersetDialect
from api.dialects.truncation import read_truncation
from api.dialects.voyage import VoyageDialect
from shared.contracts import Truncation
from shared.errors import InvalidRequest
from tests.api.dialects.support import BODY, json_values, parse_error
from tests.shared.support import properties

END, START, NONE = Truncation.END, Truncation.START, Truncation.NONE
SUPERSET = SupersetDialect()
BAD_LIMITS: list[Any] = [0, -2, "many", True, 1.5, []]
FIELDS = ("truncate", "truncation", "truncation_direction", "truncation_side", "truncate_prompt_tokens", "parameters")
MEANINGS: list[tuple[dict[str, Any], Truncation]] = [
    ({}, END),
    ({"truncate": True}, END),
    ({"truncate": "END"}, END),
    ({"truncate": "START"}, START),
    ({"truncate": "none"}, NONE),
    ({"truncate": False}, NONE),
    ({"truncate": "false"}, NONE),
    ({"truncation": True}, END),
    ({"truncation": False}, NONE),
    ({"truncation_direction": "Left"}, START),
    ({"truncation_direction": "RIGHT"}, END),
    ({"truncation_side": "left"}, START),
    ({"truncation_side": "right"}, END),
    ({"truncate": True, "truncation_direction": "Left"}, START),
    ({"truncate": False, "truncation_direction": "Right"}, NONE),
    ({"truncate": "NONE", "truncation": False}, NONE),
    ({"parameters": {"truncate": "NONE"}}, NONE),
    ({"parameters": {"truncate": "END"}, "truncate": None}, END),
    ({"parameters": {"other": 1}}, END),
]


@pytest.mark.parametrize(("fields", "truncation"), MEANINGS, ids=str)
def test_every_name_is_understood_at_the_root(fields: dict[str, Any], truncation: Truncation) -> None:
    assert SUPERSET.parse(BODY | fields).truncation is truncation


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (VoyageDialect(), BODY | {"truncation": False}),
        (NvidiaDialect(), {"query": "q", "passages": ["p"], "truncate": "NONE"}),
        (PineconeDialect(), BODY | {"parameters": {"truncate": "NONE"}}),
        (SUPERSET, BODY | {"truncate": "NONE"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_system_forbids_truncation_in_its_own_field(dialect: Dialect, body: dict[str, Any]) -> None:
    assert dialect.parse(body).truncation is NONE


@pytest.mark.parametrize(
    "dialect", [dialect for family in FAMILIES for dialect in family.dialects], ids=lambda dialect: dialect.name
)
def test_every_dialect_reads_the_fields_beside_its_own(dialect: Dialect) -> None:
    body = dict(next(iter(dialect.examples.values())))
    limited = dialect.parse(body | {"truncate": True, "truncation_side": "left", "truncate_prompt_tokens": 9})
    assert (limited.truncation, limited.max_prompt_tokens) == (START, 9)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncate": "NONE", "truncation": True}, "truncation"),
        ({"truncate": "END", "truncation": False}, "truncation"),
        ({"truncate": True, "parameters": {"truncate": "NONE"}}, "parameters.truncate"),
        ({"truncate": "END", "truncation_side": "left"}, "truncation_side"),
        ({"truncation_direction": "Left", "truncation_side": "right"}, "truncation_side"),
    ],
    ids=str,
)
def test_contradicting_fields_are_rejected(fields: dict[str, Any], param: str) -> None:
    message, named = parse_error(SUPERSET, BODY | fields)
    assert named == param
    assert message.startswith(f"{param} contradicts ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncate": "MIDDLE"}, "truncate"),
        ({"truncate": 5}, "truncate"),
        ({"truncation": "end"}, "truncation"),
        ({"truncation_direction": "Up"}, "truncation_direction"),
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"truncation_side": True}, "truncation_side"),
        ({"parameters": {"truncate": "SOMETIMES"}}, "parameters.truncate"),
        *(({"truncate_prompt_tokens": limit}, "truncate_prompt_tokens") for limit in BAD_LIMITS),
    ],
    ids=str,
)
def test_an_unknown_value_is_rejected_with_its_field(fields: dict[str, Any], param: str) -> None:
    message, named = parse_error(SUPERSET, BODY | fields)
    assert named == param
    assert message.startswith(f"{param}: ")


@pytest.mark.parametrize("sizes", [{"max_tokens_per_doc": 8}, {"truncate_prompt_tokens": 8}])
def test_windows_that_overlap_completely_are_rejected(sizes: dict[str, int]) -> None:
    windows = BODY | sizes | {"max_chunks_per_doc": 3}
    assert parse_error(SUPERSET, windows | {"overlap_tokens": 8}) == (
        "overlap_tokens is 8, but must be less than the 8 tokens of a window",
        "overlap_tokens",
    )
    assert SUPERSET.parse(windows | {"overlap_tokens": 7}).overlap_tokens == 7


@properties
@given(st.dictionaries(st.sampled_from(FIELDS), json_values | st.sampled_from(["NONE", "left", True, -1, 7])))
def test_any_value_is_read_or_rejected_with_its_field(body: dict[str, Any]) -> None:
    rejected = None
    read: dict[str, Any] = {}
    try:
        read = read_truncation(body)
    except InvalidRequest as error:
        rejected = error.param
    assert rejected is None or rejected.partition(".")[0] in body
    assert isinstance(read.get("truncation", END), Truncation)
    assert read.get("max_prompt_tokens", 1) >= 1
