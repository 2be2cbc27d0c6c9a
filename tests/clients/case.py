"""What every client is asked, and what it must show for it. Imports no library and nothing of the service."""

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
    """A service to call. `says` is what of its error's message the client's exception must repeat."""

    url: str
    key: str
    model: str
    says: str = ""


def name_no_model(target: Target) -> Target:
    """How a caller asks for what is not there, whose client can name a model."""
    return replace(target, model="no-such-model")


def lead_nowhere(target: Target) -> Target:
    """The same for a caller whose client names no model: a wrong address."""
    return replace(target, url=f"{target.url}/nowhere", says="nowhere")


@dataclass(frozen=True, slots=True)
class Client:
    """One client. `call` does its work and answers, in a few words, what it got; or raises what it raises."""

    name: str
    distribution: str
    call: Callable[[Target], str]
    raises: Mapping[int, type[Exception]] = field(default_factory=dict)
    # None: nothing that this client sends names something unknown.
    mistake: Callable[[Target], Target] | None = name_no_model
    # The errors whose text the client throws away, whatever it is.
    mute: Set[int] = frozenset()
    # Where a dialect is spoken exactly: the client's line is run with this behind the service's address.
    prefix: str = ""
    # It tries again by itself, no sooner than a Retry-After says.
    patient: bool = False
    # Its time counts: nobody else calls meanwhile.
    alone: bool = False


def made(name: str, target: Target, **names: Any) -> Any:
    """What the client's line evaluates to; `...` in it stands for the question."""
    return eval(_filled(name, target), {**names, "question": question()})


def done(name: str, target: Target, **names: Any) -> None:
    """Carries out the client's line, which is a statement."""
    exec(_filled(name, target), names)


def _filled(name: str, target: Target) -> str:
    line = LINES[name].replace("URL/", f"{target.url}/").replace('"URL"', f'"{target.url}"')
    return line.replace("KEY", target.key).replace("MODEL", target.model).replace("...", "**question")


def question() -> dict[str, Any]:
    return {"query": QUERY, "documents": DOCUMENTS, "top_n": TOP}


def ranked(order: Sequence[int], scores: Sequence[float], texts: Sequence[str] | None = None) -> str:
    """Raises AssertionError unless this is the right ranking; `texts` where the service sent the documents back."""
    assert list(order) == BEST_FIRST, f"order {list(order)}"
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores), f"scores {scores}"
    assert list(scores) == sorted(scores, reverse=True), f"scores {scores}"
    if texts is not None:
        assert list(texts) == [DOCUMENTS[index] for index in order], f"documents {texts}"
    return f"{len(order)} of {len(DOCUMENTS)} ranked" + (", with documents" if texts else "")


def ranked_texts(texts: Sequence[str], scores: Sequence[float]) -> str:
    """The same for a client that answers with the caller's own documents in their new order."""
    return ranked([DOCUMENTS.index(text) for text in texts], scores)
