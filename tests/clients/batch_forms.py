"""Batches in forms other than OpenAI's: the input files of `vllm run-batch`, and Voyage's batches."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai

from tests.clients.batch_case import check_counts, check_output, jsonl, rows, wait_for_end
from tests.clients.case import DOCUMENTS, QUERY, Client, Target, evaluate_line
from tests.clients.openai_batches import run

ROOT = Path(__file__).resolve().parents[2]
_VLLM_SECONDS = 100.0


def vllm_run_batch(target: Target) -> str:
    """vLLM's own models accept the input before it is uploaded, and the output after it is downloaded."""
    client = evaluate_line("openai, files and batches", target, openai=openai)
    lines = _vllm_lines(target.model)
    batch = run(client, jsonl(lines))
    check_counts(batch, completed=len(lines), failed=0)
    output = rows(client.files.content(batch.output_file_id).text)
    answers = [client.post(target.url + line["url"], cast_to=object, body=line["body"]) for line in lines]
    check_output(output, lines, answers)
    kinds = _check_with_vllm(lines, output)
    assert kinds["outputs"] == [_response_type(line) for line in lines], kinds
    return f"{len(lines)} lines and rows accepted by vLLM's own models"


def _response_type(line: dict[str, Any]) -> str:
    """The type that vLLM reads a row as: of its types, the one that has the most of the row's fields."""
    # At the root a single ranked document looks more like a score: rows of `data` have a `score`, too.
    is_single = line["url"] == "/rerank" and line["body"].get("top_n") == 1
    is_score = line["url"].endswith("score") or is_single
    return "ScoreResponse" if is_score else "RerankResponse"


def _vllm_lines(model: str) -> list[dict[str, Any]]:
    """One line for each path and for each form of the fields that `vllm run-batch` accepts."""
    rerank: dict[str, Any] = {"model": model, "query": QUERY, "documents": DOCUMENTS}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/score", {"model": model, "queries": QUERY, "documents": DOCUMENTS}),
        ("/score", {"model": model, "text_1": QUERY, "text_2": DOCUMENTS}),
        ("/v1/score", {"model": model, "text_1": [QUERY, QUERY, QUERY], "text_2": DOCUMENTS}),
        ("/score", {"model": model, "data_1": QUERY, "data_2": DOCUMENTS[0]}),
        ("/v1/score", {"model": model, "queries": QUERY, "items": DOCUMENTS}),
        ("/v1/rerank", rerank),
        ("/rerank", {**rerank, "top_n": 1}),
        ("/v2/rerank", rerank),
        ("/vllm/v1/rerank", {**rerank, "top_n": 1}),
    ]
    return [
        {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body}
        for number, (url, body) in enumerate(bodies, 1)
    ]


def _check_with_vllm(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> Any:
    """The names of vLLM's types for the lines. Raises AssertionError with vLLM's error. vLLM is only in .venv."""
    command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "tests.clients.vllm_lines"]
    given = json.dumps({"inputs": inputs, "outputs": outputs})
    checked = subprocess.run(command, input=given, cwd=ROOT, capture_output=True, text=True, timeout=_VLLM_SECONDS)
    assert checked.returncode == 0, checked.stderr[-1500:]
    return json.loads(checked.stdout)


def voyage_batch(target: Target) -> str:
    """Voyage's batches: the endpoint has no leading slash, and `request_params` has what all lines share.

    Voyage's own SDK (0.5.0) has no batches, so this sends what Voyage's documentation describes.
    """
    client = evaluate_line("voyage, batches", target, httpx=httpx)
    bodies = [{"query": query, "documents": DOCUMENTS} for query in (QUERY, "bear")]
    lines = [{"custom_id": f"query-{number}", "body": body} for number, body in enumerate(bodies)]
    shared = {"model": target.model, "top_k": 1}
    with client:
        upload = {"file": ("requests.jsonl", jsonl(lines))}
        file = _read(client.post("/files", files=upload, data={"purpose": "batch"}))
        created = _read(client.post("/batches", json=_voyage_creation(file["id"], shared)))
        assert created["completion_window"] == "12h"
        assert abs(created["expires_at"] - created["created_at"] - 12 * 3600) <= 1
        batch = wait_for_end(lambda: _as_object(_read(client.get(f"/batches/{created['id']}"))))
        check_counts(batch, completed=len(lines), failed=0)
        content = client.get(f"/files/{batch.output_file_id}/content")
        answers = [_read(client.post("/rerank", json={**body, **shared})) for body in bodies]
    output = rows(content.text)
    assert all(len(row["response"]["body"]["data"]) == 1 for row in output), output
    return check_output(output, lines, answers)


def _voyage_creation(file_id: str, shared: dict[str, Any]) -> dict[str, Any]:
    return {
        "endpoint": "v1/rerank",
        "input_file_id": file_id,
        "completion_window": "12h",
        "request_params": shared,
    }


def _read(response: httpx.Response) -> Any:
    return response.raise_for_status().json()


def _as_object(batch: dict[str, Any]) -> SimpleNamespace:
    """The batch with attributes, as the checks read it."""
    return SimpleNamespace(**batch | {"request_counts": SimpleNamespace(**batch["request_counts"])})


CLIENTS = [
    Client("vllm run-batch, its input file", "openai", vllm_run_batch),
    Client("voyage, batches", "httpx", voyage_batch),
]
