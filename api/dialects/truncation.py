"""Parses what a caller wants with texts that are too long, in the fields of every system.

`truncate` is a bool (TEI) or END, START, NONE (NVIDIA; in Pinecone's `parameters`), `truncation` a bool (Voyage),
`truncation_direction` Left or Right (TEI), `truncation_side` left or right, `truncate_prompt_tokens` a number (vLLM).
All dialects read all of them. Fields that contradict each other are an error.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared.contracts import Truncation
from shared.errors import InvalidRequest

PROMPT_LIMIT = "truncate_prompt_tokens"
_SIDE_FIELDS = ("truncation_direction", "truncation_side")
_FIELDS = frozenset({"truncate", "truncation", "parameters", PROMPT_LIMIT, *_SIDE_FIELDS})
_MODES = {mode.value: mode for mode in Truncation}
_SIDES = {"right": Truncation.END, "left": Truncation.START}
_BOOL = TypeAdapter(bool)
_INT = TypeAdapter(int)


def read_truncation(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `truncation` and `max_prompt_tokens` of RerankRequest, if the body has any. Raises InvalidRequest."""
    if _FIELDS.isdisjoint(body):
        return {}
    read: dict[str, Any] = {}
    if (limit := _read_limit(body.get(PROMPT_LIMIT))) is not None:
        read["max_prompt_tokens"] = limit
    if (truncation := _read_mode(body)) is not None:
        read["truncation"] = truncation
    return read


def check_overlap(overlap: int | None, windows: int, *sizes: int | None) -> None:
    """Raise InvalidRequest when windows would overlap completely. `sizes` are the limits of a window's tokens."""
    known = [size for size in sizes if size is not None]
    if overlap is not None and windows > 1 and known and overlap >= min(known):
        raise InvalidRequest(
            f"overlap_tokens is {overlap}, but must be less than the {min(known)} tokens of a window",
            param="overlap_tokens",
        )


def _read_mode(body: Mapping[str, Any]) -> Truncation | None:
    """How the body wants texts truncated; None when it does not say."""
    # What each field says. True: truncate, at either side.
    wishes: dict[str, Truncation | bool] = {}
    if (truncate := body.get("truncate")) is not None:
        wishes["truncate"] = _mode("truncate", truncate)
    if (truncation := body.get("truncation")) is not None:
        wishes["truncation"] = _bool("truncation", truncation)
    parameters = body.get("parameters")
    if isinstance(parameters, Mapping) and (truncate := parameters.get("truncate")) is not None:
        wishes["parameters.truncate"] = _mode("parameters.truncate", truncate)
    for name in _SIDE_FIELDS:
        if (side := body.get(name)) is not None:
            wishes[name] = _side(name, side)
    return _combine(wishes)


def _combine(wishes: Mapping[str, Truncation | bool]) -> Truncation | None:
    """What all fields say together. Raises InvalidRequest naming a field that contradicts an earlier one."""
    # A side does not ask for truncation: clients of TEI send one beside `truncate: false`.
    forbids = {name: wish in (False, Truncation.NONE) for name, wish in wishes.items() if name not in _SIDE_FIELDS}
    _require_agreement(forbids, "one forbids truncation, one asks for it")
    if any(forbids.values()):
        return Truncation.NONE
    sides = {name: wish for name, wish in wishes.items() if isinstance(wish, Truncation)}
    _require_agreement(sides, "they cut off different ends of a text")
    if sides:
        return next(iter(sides.values()))
    return Truncation.END if wishes else None


def _require_agreement(fields: Mapping[str, object], conflict: str) -> None:
    """Raise InvalidRequest when the fields have different values."""
    for (first, one), (second, other) in pairwise(fields.items()):
        if one != other:
            raise InvalidRequest(f"{second} contradicts {first}: {conflict}", param=second)


def _mode(name: str, value: Any) -> Truncation | bool:
    if isinstance(value, str) and (mode := _MODES.get(value.lower())) is not None:
        return mode
    try:
        return _BOOL.validate_python(value)
    except ValidationError:
        raise InvalidRequest(f"{name}: input should be END, START, NONE or a bool", param=name) from None


def _bool(name: str, value: Any) -> bool:
    try:
        return _BOOL.validate_python(value)
    except ValidationError:
        raise InvalidRequest(f"{name}: input should be a valid boolean", param=name) from None


def _side(name: str, value: Any) -> Truncation:
    if isinstance(value, str) and (side := _SIDES.get(value.lower())) is not None:
        return side
    raise InvalidRequest(f"{name}: input should be left or right", param=name)


def _read_limit(value: Any) -> int | None:
    """The caller's limit of a prompt's tokens; None for the model's own, which -1 stands for."""
    if value is None:
        return None
    try:
        limit = 0 if isinstance(value, bool) else _INT.validate_python(value)
    except ValidationError:
        limit = 0
    if limit == -1:
        return None
    if limit < 1:
        raise InvalidRequest(
            f"{PROMPT_LIMIT}: input should be a number of at least 1, or -1 for the model's limit", param=PROMPT_LIMIT
        )
    return limit
