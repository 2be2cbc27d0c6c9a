import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.contracts import MAX_PRIORITY, Document, RerankRequest, ScoreScale, ShardScores
from shared.ledger.encoding import (
    decode_request,
    decode_scores,
    decode_shard_request,
    encode_documents,
    encode_request,
    encode_scores,
)
from tests.shared.support import make_request, properties

texts = st.text(max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | finite | texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
    max_leaves=5,
)
documents = st.builds(
    Document,
    text=texts,
    query=st.none() | texts,
    fields=st.none() | st.dictionaries(texts, json_values, max_size=3),
    id=st.none() | texts | st.integers(-(2**63), 2**63),
    meta=json_values,
)
requests = st.builds(
    RerankRequest,
    model=st.none() | texts,
    query=texts,
    documents=st.lists(documents, max_size=4),
    top_n=st.none() | st.integers(1, 10**6),
    return_documents=st.booleans(),
    raw_scores=st.booleans(),
    instruction=st.none() | texts,
    max_tokens_per_query=st.none() | st.integers(1, 10**6),
    max_tokens_per_doc=st.none() | st.integers(1, 10**6),
    max_chunks_per_doc=st.integers(1, 10**6),
    overlap_tokens=st.none() | st.integers(0, 10**6),
    priority=st.integers(0, MAX_PRIORITY),
)
shard_scores = st.builds(
    ShardScores,
    scores=st.lists(st.none() | finite, max_size=5),
    scale=st.sampled_from(ScoreScale),
    prompt_tokens=st.integers(0, 10**9),
    truncated=st.lists(st.integers(0, 10**4), max_size=3),
    windows=st.dictionaries(st.integers(0, 10**4), st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=3),
    errors=st.dictionaries(st.integers(0, 10**4), texts, max_size=3),
    queue_ms=finite,
    inference_ms=finite,
)


def stored(request: RerankRequest) -> RerankRequest:
    """The request after it went through the store in one piece."""
    return decode_request(encode_request(request), [encode_documents(request.documents)])


@properties
@given(requests, st.integers(1, 3))
def test_a_request_comes_back_as_it_was_however_it_is_cut(request: RerankRequest, size: int) -> None:
    slices = [request.documents[start : start + size] for start in range(0, len(request.documents), size)]
    assert decode_request(encode_request(request), [encode_documents(part) for part in slices]) == request


@properties
@given(requests)
def test_one_slice_is_the_request_with_these_documents_alone(request: RerankRequest) -> None:
    first = request.documents[:1]
    decoded = decode_request(encode_request(request), [encode_documents(first)])
    assert decoded == request.model_copy(update={"documents": first})


@properties
@given(requests)
def test_a_shard_is_scored_against_the_query_that_its_documents_have(request: RerankRequest) -> None:
    first = request.documents[:1]
    own = first[0].query if first else None
    decoded = decode_shard_request(encode_request(request), encode_documents(first))
    expected = request.query if own is None else own
    assert decoded == request.model_copy(update={"documents": first, "query": expected})


@properties
@given(texts)
def test_a_plain_document_is_one_like_any_other(text: str) -> None:
    plain, other = Document.plain(text), Document(text=text)
    assert plain == other
    assert plain.model_copy(update={"id": 1}) == Document(text=text, id=1)
    assert plain.model_fields_set == other.model_fields_set
    assert encode_documents([plain]) == encode_documents([other])


@properties
@given(shard_scores)
def test_scores_come_back_as_they_were(scores: ShardScores) -> None:
    assert decode_scores(encode_scores(scores)) == scores


def test_the_types_of_a_callers_own_values_survive() -> None:
    mine = {"ratio": 1.0, "count": 1, "flag": True, "nothing": None, "deep": [{"ü": "日本"}]}
    request = RerankRequest(query="q", documents=[Document(text="t", id="1", meta=mine), Document(text="t", id=1)])
    decoded = stored(request)
    assert repr(decoded.documents) == repr(request.documents)


def test_what_is_the_default_costs_no_bytes() -> None:
    request = make_request("t")
    assert json.loads(encode_request(request)) == {"query": "a query"}
    assert json.loads(encode_documents(request.documents)) == [{"text": "t"}]


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"documents": []}'])
def test_what_is_no_request_is_refused(payload: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_request(payload, [])


@pytest.mark.parametrize("part", [b"", b"{}", b"[3]", b'[{"id": 1}]'])
def test_what_are_no_documents_is_refused(part: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_request(encode_request(make_request()), [part])
