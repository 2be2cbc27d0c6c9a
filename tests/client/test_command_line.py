"""`python -m client` as a user runs it: real processes, a real service."""

import json
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.client.command import run
from tests.stacks import PANDA

DOCUMENTS: list[str] = PANDA["documents"]  # type: ignore[assignment]
QUERY: str = PANDA["query"]  # type: ignore[assignment]


class TestRank:
    def test_documents_as_arguments_come_out_as_a_table(self, service: Stack) -> None:
        ended = run(service, "rank", QUERY, *DOCUMENTS, "--top-n", "2")
        assert ended.returncode == 0, ended.stderr
        lines = [line for line in ended.stdout.splitlines() if "bear" in line]
        assert ["giant panda" in line for line in lines] == [True, False]
        assert "all-MiniLM-L6-v2" in ended.stdout

    def test_json_is_what_the_service_said(self, service: Stack) -> None:
        ended = run(service, "rank", QUERY, *DOCUMENTS, "--json")
        assert [row["index"] for row in json.loads(ended.stdout)["results"]] == [2, 1, 0]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("texts.txt", "hi\n\nit is a bear\nThe giant panda is a bear species endemic to China.\n"),
            ("texts.json", json.dumps(DOCUMENTS)),
            ("texts.jsonl", '"hi"\n{"text": "it is a bear"}\n\n' + json.dumps({"text": DOCUMENTS[2]}) + "\n"),
        ],
    )
    def test_documents_come_from_files(self, service: Stack, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        ended = run(service, "rank", QUERY, "--file", str(tmp_path / name), "--json")
        assert [row["index"] for row in json.loads(ended.stdout)["results"]] == [2, 1, 0], ended.stderr

    def test_documents_come_from_standard_input(self, service: Stack) -> None:
        for arguments in ([], ["--file", "-"], ["first of all", "--file", "-"]):
            ended = run(service, "rank", QUERY, *arguments, "--json", given="hi\nit is a bear\na panda\n")
            assert json.loads(ended.stdout)["results"][0]["document"] == {"text": "a panda"}

    def test_what_a_terminal_would_obey_is_not_printed(self, service: Stack) -> None:
        ended = run(service, "rank", "panda", "a \x1b[31mpanda [bold]x[/bold]\nline", "--top-n", "1")
        assert "\x1b" not in ended.stdout
        assert "a [31mpanda [bold]x[/bold] line" in ended.stdout


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["rank", QUERY], "no documents: pass"),
            (["rank", QUERY, "--file", "/nowhere"], "cannot read /nowhere: "),
            (["rank", QUERY, "a", "--url", "localhost:8000"], "must start with http:// or https://"),
            (["rank", QUERY, "a", "--top-n", "0"], "expected a number of 1 or more"),
            (["batch", "/nowhere", "/tmp/out"], "cannot read /nowhere: "),
            (["job", "forget", "x"], "invalid choice: 'forget'"),
        ],
    )
    def test_a_wrong_command_line_is_one_sentence_and_status_2(
        self, service: Stack, arguments: list[str], said: str
    ) -> None:
        ended = run(service, *arguments)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_what_the_service_refuses_is_one_sentence_and_status_1(self, service: Stack) -> None:
        ended = run(service, "rank", QUERY, "a", "--model", "nope")
        assert ended.returncode == 1
        assert ended.stderr == "client: model 'nope' is not served here; served: all-MiniLM-L6-v2\n"

    def test_nobody_there_comes_with_a_hint(self, service: Stack) -> None:
        ended = run(service, "models", "--url", "http://127.0.0.1:9", "--retries", "0")
        assert ended.returncode == 1
        assert ended.stderr.startswith("client: no answer from http://127.0.0.1:9")
        assert "check that the service is running" in ended.stderr

    def test_help_is_there_for_every_command(self, service: Stack) -> None:
        for arguments in ([], ["rank"], ["job"], ["job", "wait"], ["batch"], ["models"]):
            ended = run(service, *arguments, "--help")
            assert ended.returncode == 0
            assert "usage: python -m client" in ended.stdout


class TestJob:
    def test_a_job_from_submission_to_removal(self, service: Stack) -> None:
        job = run(service, "job", "submit", QUERY, *DOCUMENTS).stdout.strip()
        waited = run(service, "job", "wait", job)
        assert (waited.returncode, "succeeded" in waited.stdout, job in waited.stdout) == (0, True, True)
        assert json.loads(run(service, "job", "show", job, "--json").stdout)["status"] == "succeeded"
        assert "giant panda" in run(service, "job", "results", job).stdout
        assert "succeeded" in run(service, "job", "cancel", job).stdout
        assert run(service, "job", "delete", job).returncode == 0
        gone = run(service, "job", "show", job)
        assert (gone.returncode, gone.stderr) == (1, f"client: there is no job '{job}'\n")

    def test_waiting_for_one_that_is_canceled_is_status_1(self, slow_service: Stack) -> None:
        job = run(slow_service, "job", "submit", "to be canceled", *DOCUMENTS).stdout.strip()
        assert "canceled" in run(slow_service, "job", "cancel", job).stdout
        waited = run(slow_service, "job", "wait", job)
        assert (waited.returncode, "canceled" in waited.stdout) == (1, True)

    def test_models(self, service: Stack) -> None:
        assert "sentence-transformers/all-MiniLM-L6-v2" in run(service, "models").stdout
