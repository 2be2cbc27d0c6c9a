"""The README's examples of the client work."""

import re
import shlex

import pytest

from client.__main__ import make_parser
from infra.local.stack import ROOT, Stack

README = (ROOT / "README.md").read_text()
COMMANDS = [line for line in README.splitlines() if line.startswith("python -m client ")]


def test_python_example_runs(service: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(from client import .*?)^```", README, re.DOTALL | re.MULTILINE)
    exec(example.replace("http://127.0.0.1:8000", service.url), {})
    assert capsys.readouterr().out.startswith("0 Ranking(id='job-")


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_valid(line: str) -> None:
    assert make_parser().parse_args(shlex.split(line, comments=True)[3:]).action
