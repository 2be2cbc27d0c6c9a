"""The README's table of clients says what the cases run. The clients themselves: `make test-clients`."""

import json
import re

from infra.local.stack import ROOT
from tests.clients.lines import LINES

JS = ROOT / "tests/clients/js"
JS_LINES = json.loads((JS / "lines.json").read_text())


def test_the_readme_has_each_clients_line_as_it_is_run() -> None:
    rows = re.findall(r"^\| ([^|]+) \| `([^`|]+)` \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert dict(rows) == LINES | JS_LINES


def test_each_line_is_run_by_some_case() -> None:
    cases = "".join((ROOT / "tests/clients" / f"{name}.py").read_text() for name in ("sdks", "frameworks", "infinity"))
    litellm = {name.removeprefix("litellm, ") for name in LINES if name.startswith("litellm")}
    assert [name for name in litellm if f'"{name}"' not in cases] == []
    others = [name for name in LINES if not name.startswith("litellm")]
    assert [name for name in others if f'"{name}", target' not in cases and f'name = "{name}"' not in cases] == []


def test_each_line_for_javascript_is_run_by_some_case() -> None:
    session = (JS / "session.mjs").read_text()
    assert [name for name in JS_LINES if f'name: "{name}"' not in session] == []


def test_the_lock_for_javascript_names_no_registry() -> None:
    assert "://" not in re.sub(r'"(url|funding)": ".*"', "", (JS / "package-lock.json").read_text())
