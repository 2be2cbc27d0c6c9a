"""The documented examples of the systems that rerankq stands in for, run against the real stack.

Each file under examples/ has one request as its system documents it, without the model's name, and the exact response
of rerankq. `<id>` and similar placeholders replace values that differ between runs.
"""

import json
from pathlib import Path

import httpx
import pytest

from api.dialects.registry import FAMILIES
from tests.wire.support import mask_variable_fields

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_gets_the_recorded_response(client: httpx.Client, path: Path) -> None:
    example = json.loads(path.read_text())
    response = client.post(example["path"], json=example["request"])
    body = mask_variable_fields(response.json())
    assert (response.status_code, body) == (example["status"], example["answer"])


def test_every_dialect_has_examples_of_results_and_errors() -> None:
    examples = [json.loads(path.read_text()) for path in EXAMPLES]
    outcomes = {(example["path"], example["status"] == 200) for example in examples}
    for family in FAMILIES:
        prefix = "" if family.name == "superset" else f"/{family.name}"
        for dialect in family.dialects:
            for succeeds in (True, False):
                assert any((prefix + path, succeeds) in outcomes for path in dialect.paths), (dialect.name, succeeds)
