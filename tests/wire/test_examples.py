"""The documented examples of the systems that rerankq stands in for, run against the real stack.

Each file under examples/ is one call as its system documents it (only the model's name is left out) and the answer
that rerankq gives, word for word; `<id>` and the like stand for what differs every time.
"""

import json
from pathlib import Path

import httpx
import pytest

from api.dialects.registry import FAMILIES
from tests.wire.support import masked

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(client: httpx.Client, path: Path) -> None:
    example = json.loads(path.read_text())
    answer = client.post(example["path"], json=example["request"])
    assert (answer.status_code, masked(answer.json())) == (example["status"], example["answer"])


def test_there_are_answers_and_errors_of_every_dialect() -> None:
    read = [json.loads(path.read_text()) for path in EXAMPLES]
    seen = {(example["path"], example["status"] == 200) for example in read}
    for family in FAMILIES:
        prefix = "" if family.name == "superset" else f"/{family.name}"
        for dialect in family.dialects:
            for is_answer in (True, False):
                assert any((prefix + path, is_answer) in seen for path in dialect.paths), (dialect.name, is_answer)
