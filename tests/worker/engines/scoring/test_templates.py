"""Score templates: found by name or path, and rendered as a chat template is."""

from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker.engines.base import EngineError, EngineStartError
from worker.engines.scoring.templates import check_instruction, load_template, shipped_templates

PAIR = [{"role": "query", "content": "what is {{ it }}?"}, {"role": "document", "content": "a panda\n"}]


def render(name: str, **variables: str) -> str:
    """As transformers renders a chat template."""
    template = load_template(name)
    assert template is not None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return str(environment.from_string(template).render(messages=PAIR, **variables))


def test_these_templates_are_shipped() -> None:
    assert shipped_templates() == ["bge-reranker-v2-gemma", "mxbai-rerank-v2", "qwen3-reranker"]


@pytest.mark.parametrize("name", shipped_templates())
def test_a_shipped_template_puts_both_texts_word_for_word_and_takes_an_instruction(name: str) -> None:
    plain, told = render(name), render(name, instruction="prefer {{ short }} answers")
    for prompt in (plain, told):
        assert "what is {{ it }}?" in prompt
        assert "a panda\n" in prompt
    assert "prefer {{ short }} answers" in told
    assert "prefer" not in plain
    assert "undefined" not in plain.lower()
    assert render(name, instruction="") == plain


def test_a_file_is_a_template_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0].content }}|{{ messages[1].content }}")
    assert render(str(path)) == "what is {{ it }}?|a panda\n"


def test_no_template_is_none() -> None:
    assert load_template(None) is None


@pytest.mark.parametrize("name", ["no-such-template", "templates", "../templates/qwen3-reranker", "nul\0byte", ""])
def test_a_template_that_does_not_exist_is_an_error_naming_those_that_do(name: str) -> None:
    with pytest.raises(EngineStartError, match="neither a file nor one of bge-reranker-v2-gemma"):
        load_template(name)


def test_a_template_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "binary.jinja"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(EngineStartError, match="neither a file nor one of"):
        load_template(str(path))


def test_an_instruction_needs_a_template_with_a_place_for_it() -> None:
    check_instruction(None, None)
    check_instruction("judge", "{{ instruction }}")
    with pytest.raises(EngineError, match="takes no instruction: it has no score template"):
        check_instruction("judge", None)
    with pytest.raises(EngineError, match="takes no instruction: its score template has no place for one"):
        check_instruction("judge", "{# instruction #}{{ messages }}")
