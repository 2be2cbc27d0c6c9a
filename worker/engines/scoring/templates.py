"""Finds score templates: the prompts of language models that rerank. Does not render them."""

import re
from pathlib import Path

from worker.engines.base import EngineError, EngineStartError

_SHIPPED = Path(__file__).with_name("templates")
_INSTRUCTION = re.compile(r"\binstruction\b")


def shipped_templates() -> list[str]:
    """The shipped template names, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.jinja"))


def load_template(name: str | None) -> str | None:
    """The Jinja text of a shipped template, or of a file; None for None. Raises EngineStartError.

    The template receives `messages`, one with the role `query` and one with the role `document`, each with its
    `content`, and `instruction`, which may be undefined.
    """
    if name is None:
        return None
    path = _SHIPPED / f"{name}.jinja" if name in shipped_templates() else Path(name)
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        # ValueError: the file is not text, or the name cannot be a file name.
        known = ", ".join(shipped_templates())
        raise EngineStartError(f"score_template {name!r} is neither a file nor one of {known}") from error


def check_instruction(instruction: str | None, template: str | None) -> None:
    """Raise EngineError when there is an instruction but the template does not use it."""
    if instruction is None:
        return
    if template is None:
        raise EngineError("this model takes no instruction: it has no score template")
    if not _INSTRUCTION.search(re.sub(r"\{#.*?#\}", "", template, flags=re.DOTALL)):
        raise EngineError("this model takes no instruction: its score template does not use one")
