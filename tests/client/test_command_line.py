"""`python -m client` as real processes with a real service."""

import json
from pathlib import Path

import httpx
import pytest

from client.__main__ import make_parser
from client.commands import request_options
from client.records import Request
from infra.local.stack import Stack
from tests.client.command import run
from tests.stacks import PANDA

DOCUMENTS: list[str] = PANDA["documents"]  # type: ignore[assignment]
WEBHOOK = "https://receiver.invalid/hook"
QUERY: str = PANDA["query"]  # type: ignore[assignment]


class TestRank:
    def test_documents_from_arguments_are_printed_as_a_table(self, service: Stack) -> None:
        result = run(service, "rank", QUERY, *DOCUMENTS, "--top-n", "2")
        assert result.returncode == 0, result.stderr
        lines = [line for line in result.stdout.splitlines() if "bear" in line]
        assert ["giant panda" in line for line in lines] == [True, False]
        assert "all-MiniLM-L6-v2" in result.stdout

    def test_json_option_prints_the_response(self, service: Stack) -> None:
        result = run(service, "rank", QUERY, *DOCUMENTS, "--json")
        assert [row["index"] for row in json.loads(result.stdout)["results"]] == [2, 1, 0]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("texts.txt", "hi\n\nit is a bear\nThe giant panda is a bear species endemic to China.\n"),
            ("texts.json", json.dumps(DOCUMENTS)),
            ("texts.jsonl", '"hi"\n{"text": "it is a bear"}\n\n' + json.dumps({"text": DOCUMENTS[2]}) + "\n"),
        ],
    )
    def test_documents_are_read_from_a_file(self, service: Stack, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        result = run(service, "rank", QUERY, "--file", str(tmp_path / name), "--json")
        assert [row["index"] for row in json.loads(result.stdout)["results"]] == [2, 1, 0], result.stderr

    def test_documents_are_read_from_standard_input(self, service: Stack) -> None:
        for arguments in ([], ["--file", "-"], ["first of all", "--file", "-"]):
            result = run(service, "rank", QUERY, *arguments, "--json", stdin="hi\nit is a bear\na panda\n")
            assert json.loads(result.stdout)["results"][0]["document"] == {"text": "a panda"}

    def test_control_characters_are_not_printed(self, service: Stack) -> None:
        result = run(service, "rank", "panda", "a \x1b[31mpanda [bold]x[/bold]\nline", "--top-n", "1")
        assert "\x1b" not in result.stdout
        assert "a [31mpanda [bold]x[/bold] line" in result.stdout


class TestWebhook:
    def test_webhook_is_a_field_of_the_request(self) -> None:
        options = make_parser().parse_args(["job", "submit", QUERY, "--webhook", WEBHOOK])
        body = Request(QUERY, ["a"], request_options(options)).body()
        assert body == {"query": QUERY, "documents": ["a"], "webhook": {"url": WEBHOOK}}

    def test_end_of_the_job_is_reported(self, service: Stack) -> None:
        job = run(service, "job", "submit", QUERY, *DOCUMENTS, "--webhook", WEBHOOK).stdout.strip()
        assert run(service, "job", "wait", job).returncode == 0
        deliveries = httpx.get(f"{service.url}/v1/webhooks/default/deliveries").json()["data"]
        assert [(each["type"], each["url"]) for each in deliveries if each["job"] == job] == [
            ("job.succeeded", WEBHOOK)
        ]

    def test_address_that_is_not_public_is_refused(self, service: Stack) -> None:
        result = run(service, "rank", QUERY, "a", "--webhook", "https://127.0.0.1/hook")
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "webhook.url" in result.stderr


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["rank", QUERY], "no documents: pass"),
            (["rank", QUERY, "--file", "/nowhere"], "cannot read /nowhere: "),
            (["rank", QUERY, "a", "--url", "localhost:8000"], "must start with http:// or https://"),
            (["rank", QUERY, "a", "--top-n", "0"], "expected a number of 1 or more"),
            (["batch", "/nowhere", "/tmp/out"], "cannot read /nowhere: "),
            (["batch", "in", "out", "--metadata", "team"], "expected KEY=VALUE"),
            (["batch", "status"], "the following arguments are required: ID"),
            (["job", "forget", "x"], "invalid choice: 'forget'"),
        ],
    )
    def test_invalid_command_line_prints_one_sentence_and_exits_with_2(
        self, service: Stack, arguments: list[str], message: str
    ) -> None:
        result = run(service, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in result.stderr
        assert "Traceback" not in result.stderr

    def test_rejected_request_prints_one_sentence_and_exits_with_1(self, service: Stack) -> None:
        result = run(service, "rank", QUERY, "a", "--model", "nope")
        assert result.returncode == 1
        assert result.stderr == "client: model 'nope' is not served here; served: all-MiniLM-L6-v2\n"

    def test_unreachable_service_is_reported_with_a_hint(self, service: Stack) -> None:
        result = run(service, "models", "--url", "http://127.0.0.1:9", "--retries", "0")
        assert result.returncode == 1
        assert result.stderr.startswith("client: no answer from http://127.0.0.1:9")
        assert "check that the service is running" in result.stderr

    def test_every_command_has_help(self, service: Stack) -> None:
        for arguments in (
            [],
            ["rank"],
            ["job"],
            ["job", "wait"],
            ["batch"],
            ["batch", "resume"],
            ["batch", "list"],
            ["models"],
        ):
            result = run(service, *arguments, "--help")
            assert result.returncode == 0
            assert "usage: python -m client" in result.stdout


class TestJob:
    def test_job_is_submitted_awaited_read_and_deleted(self, service: Stack) -> None:
        job = run(service, "job", "submit", QUERY, *DOCUMENTS).stdout.strip()
        waited = run(service, "job", "wait", job)
        assert (waited.returncode, "succeeded" in waited.stdout, job in waited.stdout) == (0, True, True)
        assert json.loads(run(service, "job", "show", job, "--json").stdout)["status"] == "succeeded"
        assert "giant panda" in run(service, "job", "results", job).stdout
        assert "succeeded" in run(service, "job", "cancel", job).stdout
        assert run(service, "job", "delete", job).returncode == 0
        deleted = run(service, "job", "show", job)
        assert (deleted.returncode, deleted.stderr) == (1, f"client: there is no job '{job}'\n")

    def test_waiting_for_a_canceled_job_exits_with_1(self, slow_service: Stack) -> None:
        job = run(slow_service, "job", "submit", "to be canceled", *DOCUMENTS).stdout.strip()
        assert "canceled" in run(slow_service, "job", "cancel", job).stdout
        waited = run(slow_service, "job", "wait", job)
        assert (waited.returncode, "canceled" in waited.stdout) == (1, True)

    def test_models_are_listed(self, service: Stack) -> None:
        assert "sentence-transformers/all-MiniLM-L6-v2" in run(service, "models").stdout
