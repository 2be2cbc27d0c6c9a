"""Score templates: found by name or path, and rendered like chat templates."""

from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker.engines.base import EngineError, EngineStartError
from worker.engines.scoring.templates import check_instruction, load_template, shipped_templates

PAIR = [{"role": "query", "content": "what is {{ it }}?"}, {"role": "document", "content": "a panda\n"}]


def render(name: str, **variables: str) -> str:
    """Render a template with the settings of transformers' chat templates."""
    template = load_template(name)
    assert template is not None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return str(environment.from_string(template).render(messages=PAIR, **variables))


def test_three_templates_are_shipped() -> None:
    assert shipped_templates() == ["bge-reranker-v2-gemma", "mxbai-rerank-v2", "qwen3-reranker"]


@pytest.mark.parametrize("name", shipped_templates())
def test_a_shipped_template_contains_both_texts_and_the_instruction_verbatim(name: str) -> None:
    plain, instructed = render(name), render(name, instruction="prefer {{ short }} answers")
    for prompt in (plain, instructed):
        assert "what is {{ it }}?" in prompt
        assert "a panda\n" in prompt
    assert "prefer {{ short }} answers" in instructed
    assert "prefer" not in plain
    assert "undefined" not in plain.lower()
    assert render(name, instruction="") == plain


def test_a_file_can_be_a_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0].content }}|{{ messages[1].content }}")
    assert render(str(path)) == "what is {{ it }}?|a panda\n"


def test_no_template_is_none() -> None:
    assert load_template(None) is None


@pytest.mark.parametrize("name", ["no-such-template", "templates", "../templates/qwen3-reranker", "nul\0byte", ""])
def test_an_unknown_template_is_rejected_with_the_shipped_names(name: str) -> None:
    with pytest.raises(EngineStartError, match="neither a file nor one of bge-reranker-v2-gemma"):
        load_template(name)


def test_a_template_file_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "binary.jinja"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(EngineStartError, match="neither a file nor one of"):
        load_template(str(path))


def test_an_instruction_needs_a_template_that_uses_it() -> None:
    check_instruction(None, None)
    check_instruction("judge", "{{ instruction }}")
    with pytest.raises(EngineError, match="takes no instruction: it has no score template"):
        check_instruction("judge", None)
    with pytest.raises(EngineError, match="takes no instruction: its score template does not use one"):
        check_instruction("judge", "{# instruction #}{{ messages }}")
