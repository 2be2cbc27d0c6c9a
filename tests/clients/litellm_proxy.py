"""Batches through LiteLLM's proxy, which runs as a process between OpenAI's SDK and the service."""

import os
import secrets
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from shared.processes import ChildProcess, stop_all
from tests.clients.batch_case import (
    ENDPOINT,
    METADATA,
    WINDOW,
    check_counts,
    check_output,
    jsonl,
    request,
    requests,
    rows,
    wait_for_end,
    wait_until,
)
from tests.clients.case import Client, Target, evaluate_line, fill_in
from tests.clients.openai_batches import parsed, rerank

PROVIDER = "hosted_vllm"
_STOP_SECONDS = 10.0

Extra = Mapping[str, Any]
"""The arguments that tell the proxy where to send a request."""


def proxy_batches(target: Target) -> str:
    """Both ways that LiteLLM documents: the name of a model in a header, and the provider's name in the body.

    With the model, the proxy asks for `GET /v1/files` first. A 404 would make it run the batch itself.
    """
    with _proxy(target) as client:
        service = evaluate_line("openai, files and batches", target, openai=openai)
        by_model = {"extra_headers": {"x-litellm-model": target.model}}
        # The ids that the proxy returns contain the model.
        _check_batch(client, service, target, by_model, {}, {})
        by_provider = {"extra_body": {"custom_llm_provider": PROVIDER}}
        summary = _check_batch(
            client, service, target, by_provider, by_provider, {"extra_query": {"provider": PROVIDER}}
        )
        _check_cancel(client, target, by_model)
    return f"by model and by provider: {summary}"


def _check_batch(client: Any, service: Any, target: Target, upload: Extra, create: Extra, read: Extra) -> str:
    """Run a batch with a bad line, and download both of its files. `service` is a client without the proxy."""
    good = requests(target.model)
    content = jsonl([*good, request("no documents", target.model, documents=[])])
    file = parsed(client.files.create(file=("requests.jsonl", content), purpose="batch", **upload))
    assert client.files.retrieve(file.id, **read).bytes == len(content)
    created = parsed(
        client.batches.create(
            input_file_id=file.id, endpoint=ENDPOINT, completion_window=WINDOW, metadata=METADATA, **create
        )
    )
    assert created.metadata == METADATA
    batch = parsed(wait_for_end(lambda: client.batches.retrieve(created.id, **read)))
    check_counts(batch, completed=len(good), failed=1)
    errors = rows(client.files.content(batch.error_file_id, **read).text)
    assert [row["custom_id"] for row in errors] == ["no documents"]
    output = rows(client.files.content(batch.output_file_id, **read).text)
    listed = client.batches.list(extra_query={"model": target.model} if not read else {"provider": PROVIDER})
    assert batch.id in [each.id for each in listed.data]
    assert client.files.delete(file.id, **read).deleted
    return check_output(output, good, [rerank(service, line["body"]) for line in good])


def _check_cancel(client: Any, target: Target, upload: Extra) -> None:
    content = jsonl([request(f"query-{number}", target.model) for number in range(5000)])
    file = client.files.create(file=("requests.jsonl", content), purpose="batch", **upload)
    created = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window=WINDOW)
    assert client.batches.cancel(created.id).status in ("cancelling", "cancelled")
    assert wait_for_end(lambda: client.batches.retrieve(created.id)).status == "cancelled"


@contextmanager
def _proxy(target: Target) -> Iterator[Any]:
    """Run the proxy, and yield OpenAI's client for it."""
    # The proxy refuses to start with a key that is well known.
    key, port = f"sk-{secrets.token_hex(16)}", _free_port()
    with tempfile.TemporaryDirectory(prefix="litellm-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(_config(target, key))
        # The proxy uploads with the settings in the file, and sends all other requests by provider with these.
        environment = os.environ | {"HOSTED_VLLM_API_BASE": f"{target.url}/v1", "HOSTED_VLLM_API_KEY": target.key}
        command = [str(Path(sys.executable).with_name("litellm")), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        child = ChildProcess("litellm", command, Path(folder) / "log", environment)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: child.exit_status is not None or _answers(url), "the proxy does not start")
            assert child.exit_status is None, child.last_lines(30)
            yield openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        except Exception as error:
            error.add_note(child.last_lines(30))
            raise
        finally:
            stop_all([child], _STOP_SECONDS)


def _config(target: Target, key: str) -> str:
    line = fill_in("LiteLLM's proxy", target)
    return f"""
model_list: [{{model_name: "{target.model}", {line}}}]
files_settings:
  - {{custom_llm_provider: {PROVIDER}, api_base: "{target.url}/v1", api_key: "{target.key}"}}
general_settings: {{master_key: "{key}"}}
"""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/liveliness", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CLIENTS = [Client("LiteLLM's proxy", "litellm", proxy_batches)]
