"""The example that every client ranks, and the checks of its result. Imports no client library and no rerankq code."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from tests.clients.lines import LINES

QUERY = "What is a panda?"
DOCUMENTS = ["hi", "it is a bear", "The giant panda is a bear species endemic to China."]
BEST_FIRST = [2, 1]
TOP = len(BEST_FIRST)


@dataclass(frozen=True, slots=True)
class Target:
    """A service to call. `says` is a part of the service's error message that the client's exception must contain."""

    url: str
    key: str
    model: str
    says: str = ""


def with_unknown_model(target: Target) -> Target:
    """A target that causes a 404, for clients that send a model name."""
    return replace(target, model="no-such-model")


def with_unknown_path(target: Target) -> Target:
    """A target that causes a 404, for clients that send no model name."""
    return replace(target, url=f"{target.url}/nowhere", says="nowhere")


@dataclass(frozen=True, slots=True)
class Client:
    """One client. `call` ranks the example and returns a short summary, or raises the client's exception."""

    name: str
    distribution: str
    call: Callable[[Target], str]
    # Status -> the exception that the client must raise.
    raises: Mapping[int, type[Exception]] = field(default_factory=dict)
    # Changes a target so that the service returns 404; None when this client cannot cause a 404.
    not_found: Callable[[Target], Target] | None = with_unknown_model
    # Statuses for which the client's exception does not contain the service's message.
    drops_message: Set[int] = frozenset()
    # A dialect's path prefix, appended to the service's address.
    prefix: str = ""
    # Whether the client retries a 429 after its Retry-After.
    retries: bool = False
    # Whether no other client may run at the same time, for example because this one is timed.
    exclusive: bool = False


def evaluate_line(name: str, target: Target, **names: Any) -> Any:
    """Evaluate the client's line. `...` in the line stands for the arguments of question()."""
    return eval(fill_in(name, target), {**names, "question": question()})


def execute_line(name: str, target: Target, **names: Any) -> dict[str, Any]:
    """Execute the client's line, which is a statement, and return all names that it knows afterwards."""
    exec(fill_in(name, target), names)
    return names


def fill_in(name: str, target: Target) -> str:
    """The client's line with the target's address, key and model."""
    line = LINES[name].replace("URL/", f"{target.url}/").replace('"URL"', f'"{target.url}"')
    return line.replace("KEY", target.key).replace("MODEL", target.model).replace("...", "**question")


def question() -> dict[str, Any]:
    return {"query": QUERY, "documents": DOCUMENTS, "top_n": TOP}


def check_ranking(order: Sequence[int], scores: Sequence[float], texts: Sequence[str] | None = None) -> str:
    """A summary of the ranking. Raises AssertionError if it is wrong. `texts` are the returned documents, if any."""
    assert list(order) == BEST_FIRST, f"order {list(order)}"
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores), f"scores {scores}"
    assert list(scores) == sorted(scores, reverse=True), f"scores {scores}"
    if texts is not None:
        assert list(texts) == [DOCUMENTS[index] for index in order], f"documents {texts}"
    return f"{len(order)} of {len(DOCUMENTS)} ranked" + (", with documents" if texts else "")


def check_ranked_texts(texts: Sequence[str], scores: Sequence[float]) -> str:
    """Like check_ranking, for a client that returns the caller's own documents in the new order."""
    return check_ranking([DOCUMENTS.index(text) for text in texts], scores)
