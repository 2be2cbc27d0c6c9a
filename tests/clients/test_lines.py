"""The tables of clients in the documentation match the lines that the clients run. `make test-clients` runs them."""

import json
import re

from infra.local.stack import ROOT
from tests.clients.lines import LINES

JS = ROOT / "tests/clients/js"
JS_LINES = json.loads((JS / "lines.json").read_text())


def table(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+) \| `([^`|]+)` \|$", text, re.MULTILINE))


def test_docs_list_every_client_with_the_line_that_runs() -> None:
    tables, _, _ = (ROOT / "docs/clients.md").read_text().partition("## What is tested")
    assert table(tables) == LINES | JS_LINES


def test_readme_lists_some_clients_with_the_line_that_runs() -> None:
    rows = table((ROOT / "README.md").read_text())
    assert rows
    assert rows.items() <= (LINES | JS_LINES).items()


def test_each_line_is_run_by_a_client() -> None:
    cases = "".join(path.read_text() for path in (ROOT / "tests/clients").glob("*.py") if path.name != "lines.py")
    litellm = {name.removeprefix("litellm, ") for name in LINES if name.startswith("litellm")}
    assert [name for name in litellm if f'"{name}"' not in cases] == []
    others = [name for name in LINES if not name.startswith("litellm")]
    assert [name for name in others if f'"{name}", target' not in cases and f'name = "{name}"' not in cases] == []


def test_each_javascript_line_is_run_by_a_client() -> None:
    session = (JS / "session.mjs").read_text()
    assert [name for name in JS_LINES if f'name: "{name}"' not in session] == []


def test_javascript_lock_names_no_registry() -> None:
    assert "://" not in re.sub(r'"(url|funding)": ".*"', "", (JS / "package-lock.json").read_text())
