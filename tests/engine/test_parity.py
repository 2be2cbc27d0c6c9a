"""A real worker with vLLM, behind the real queue, returns the scores that transformers computes."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from infra.local.stack import MODELS_FILE, Stack, StackError
from shared.models import load_models
from tests.engine.conftest import EXACT
from tests.stacks import client_of, running, write_models

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TOLERANCE = 1e-3
QUERY = "What is a panda?"
DOCUMENTS = [
    "hi",
    "it is a bear",
    "The giant panda is a bear species endemic to China. " * 3,
    "Ünïcödé, 漢字 and an emoji 🐼",
    "A document that is far too long for the model. " * 120,
]
REFERENCE = Path(__file__).with_name("reference.py")


def reference(*arguments: str, stdin: str = "") -> str:
    """Run the reference program. Returns its output."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    outcome = subprocess.run(
        [sys.executable, str(REFERENCE), *arguments],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def expected_scores(kind: str, *model: str) -> list[float]:
    pairs = json.dumps([[QUERY, document] for document in DOCUMENTS])
    scores: list[float] = json.loads(reference(kind, *model, stdin=pairs))
    return scores


def scores_of(client: httpx.Client, *, raw: bool) -> list[float]:
    """The scores in the order of DOCUMENTS."""
    body = {"query": QUERY, "documents": DOCUMENTS, "raw_scores": raw, "return_documents": False}
    response = client.post("/v1/rerank", json=body)
    assert response.status_code == 200, response.text
    rows = sorted(response.json()["results"], key=lambda row: row["index"])
    assert [row["index"] for row in rows if row.get("truncated")] == [4]
    return [row["relevance_score"] for row in rows]


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Sequence classifiers by their number of labels."""
    folder = tmp_path_factory.mktemp("classifiers")
    paths = {labels: str(folder / f"labels-{labels}") for labels in (1, 3)}
    for labels, path in paths.items():
        reference("make", path, str(labels))
    return paths


def test_the_bundled_model_is_the_published_one() -> None:
    weights = Path(load_models(MODELS_FILE).default.location()) / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_cross_encoder_agrees_with_transformers(classifiers: dict[int, str], tmp_path: Path) -> None:
    logits = expected_scores("cross", classifiers[1])
    models = write_models(tmp_path, source=classifiers[1], engine="vllm", engine_args=EXACT)
    environment = {"RERANKQ_MODELS_FILE": models}
    with running(engine="vllm", environment=environment) as stack, client_of(stack) as client:
        assert scores_of(client, raw=True) == pytest.approx(logits, abs=TOLERANCE)
        sigmoids = [1 / (1 + math.exp(-logit)) for logit in logits]
        assert scores_of(client, raw=False) == pytest.approx(sigmoids, abs=TOLERANCE)
    assert max(logits) - min(logits) > 100 * TOLERANCE


def test_a_bi_encoder_agrees_with_a_mean_pooled_cosine(bi_encoder: Stack) -> None:
    cosines = expected_scores("bi")
    with client_of(bi_encoder) as client:
        assert scores_of(client, raw=False) == pytest.approx(cosines, abs=TOLERANCE)
        assert scores_of(client, raw=True) == pytest.approx(cosines, abs=TOLERANCE)


def test_the_served_precision_is_shown(bi_encoder: Stack) -> None:
    with client_of(bi_encoder) as client:
        assert client.get("/v1/models").json()["data"][0]["dtype"] == "float32"
        assert client.get("/info").json()["model_dtype"] == "float32"


def test_max_tokens_per_doc_scores_like_a_shorter_document(bi_encoder: Stack) -> None:
    with client_of(bi_encoder) as client:

        def score(document: str, limit: int | None) -> dict[str, object]:
            body = {"query": QUERY, "documents": [document], "max_tokens_per_doc": limit}
            row: dict[str, object] = client.post("/v1/rerank", json=body).json()["results"][0]
            return row

        truncated = score("a panda is a bear from China", 4)
        short = score("a panda is a", None)
    assert truncated["truncated"] is True
    assert "truncated" not in short
    assert truncated["relevance_score"] == pytest.approx(short["relevance_score"], abs=1e-6)


def test_usage_counts_the_tokens_of_the_prompts(bi_encoder: Stack) -> None:
    with client_of(bi_encoder) as client:
        usage = client.post("/v1/rerank", json={"query": "panda", "documents": ["bear", "panda bear"]}).json()["usage"]
    # [CLS] and [SEP] around the query and each document.
    assert usage == {"prompt_tokens": 3 + 3 + 4, "completion_tokens": 0, "total_tokens": 10, "rerank_units": 1}


@pytest.mark.long
def test_a_classifier_with_several_labels_is_rejected(
    classifiers: dict[int, str],
) -> None:
    refused = pytest.raises(StackError, match="has 3 labels; a reranker must have exactly one")
    with running(model=classifiers[3], engine="vllm", ready=False) as stack, refused:
        stack.wait_ready(120)
