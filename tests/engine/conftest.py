"""The bundled model in a real worker, loaded once for all tests that need nothing else; and models made for tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.stack import Stack
from tests.engine.examples import DOCUMENTS, INSTRUCTION, QUERY
from tests.stacks import running

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

Outcome = dict[str, Any]
Drive = Callable[[list[dict[str, Any]]], list[Outcome]]


@pytest.fixture(scope="session")
def bi_encoder() -> Iterator[Stack]:
    with running(engine="vllm") as stack:
        yield stack


def run_program(*arguments: str, stdin: object) -> str:
    """Run a program of this folder, by module name; answers what it printed."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    outcome = subprocess.run(
        [sys.executable, "-m", *arguments],
        input=json.dumps(stdin),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return outcome.stdout


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Small models by kind: {"spec": a model's entry, "expected": the scores of the examples}."""
    folder = tmp_path_factory.mktemp("models")
    examples = {"query": QUERY, "documents": DOCUMENTS, "instruction": INSTRUCTION}
    models: dict[str, dict[str, Any]] = json.loads(run_program("tests.engine.tiny", str(folder), stdin=examples))
    return models


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Load models into the real engine and score batches with them, see drive.py."""
    folder = tmp_path_factory.mktemp("outcomes")

    def run(cases: list[dict[str, Any]]) -> list[Outcome]:
        run_program("tests.engine.drive", str(folder / "outcomes.json"), stdin=cases)
        outcomes: list[Outcome] = json.loads((folder / "outcomes.json").read_text())
        return outcomes

    return run
