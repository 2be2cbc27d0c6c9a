"""The documented examples of the systems that rerankq stands in for, run against the real stack.

Each file under examples/ is one call as its system documents it (only the model's name is left out) and the answer
that rerankq gives, word for word; `<id>` and `<created>` stand for what differs every time.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stacks import client_of, running

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    # Several examples ask the same: each is to be answered as if it were the first.
    with running(environment={"RERANKQ_SCORE_CACHE": "false"}) as stack, client_of(stack) as opened:
        yield opened


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(client: httpx.Client, path: Path) -> None:
    example = json.loads(path.read_text())
    answer = client.post(example["path"], json=example["request"])
    assert (answer.status_code, masked(answer.json())) == (example["status"], example["answer"])


def test_there_are_examples_of_every_system() -> None:
    systems = {path.stem.split("-")[0] for path in EXAMPLES}
    assert systems >= {"gpustack", "bifrost", "nebul"}


def masked(answer: dict[str, Any]) -> dict[str, Any]:
    for name, kind in (("id", str), ("created", int)):
        if name in answer:
            assert isinstance(answer[name], kind)
            answer[name] = f"<{name}>"
    return answer
