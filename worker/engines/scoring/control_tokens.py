"""Keeps callers' texts from speaking to the model: control tokens in a text are read as plain characters.

A tokenizer matches its control tokens (`[SEP]`, `</s>`, `<|im_end|>`) anywhere in a prompt, whoever wrote them. Here
the tokenizer gets a copy in which every control token has a secret name, drawn anew in each process. Ids do not change.
A score template's own tokens are renamed after rendering, a caller's text keeps the published names, which mean nothing
any more.
"""

import functools
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from worker.engines.base import EngineStartError

_TEXT_LIKE = frozenset("▁'-")
"""Characters of added tokens that are ordinary text, in addition to letters, digits and white space."""


class ControlTokens:
    """The control tokens of one tokenizer, and their secret names."""

    def __init__(self, added_tokens: Iterable[Mapping[str, Any]]) -> None:
        """`added_tokens` are those of a tokenizer.json."""
        secret = secrets.token_hex(16)
        self._first, self._last = f"<{secret} ", f" {secret}>"
        controls = [token for token in added_tokens if _is_control(token)]
        self.names = {token["content"]: f"<{secret}-{number}>" for number, token in enumerate(controls)}
        # The longest token wins, as in the tokenizer.
        patterns = [_pattern(token) for token in sorted(controls, key=lambda token: -len(token["content"]))]
        self._controls = re.compile("|".join(patterns) or r"(?!)")
        self._marked = re.compile(f"{self._first}(.*?){self._last}", re.DOTALL)
        # The parts of a template around the texts are the same for every pair.
        self._rename = functools.lru_cache(maxsize=64)(self._rename_controls)

    def rename_in(self, tokenizer: dict[str, Any]) -> None:
        """Rename the control tokens in a tokenizer.json, in place."""
        for token in tokenizer["added_tokens"]:
            token["content"] = self.names.get(token["content"], token["content"])
        model = tokenizer["model"]
        vocabulary = model["vocab"]
        if isinstance(vocabulary, dict):
            for token in self.names.keys() & vocabulary.keys():
                vocabulary[self.names[token]] = vocabulary.pop(token)
        else:
            # A unigram model finds every piece of its vocabulary in a text, control tokens included.
            for entry in vocabulary:
                entry[0] = self.names.get(entry[0], entry[0])
        if isinstance(unknown := model.get("unk_token"), str):
            model["unk_token"] = self.names.get(unknown, unknown)
        if "merges" in model:
            # A merge must not build a control token from plain characters.
            prefix = len(model.get("continuing_subword_prefix") or "")
            model["merges"] = [
                [left, right]
                for left, right in model["merges"]
                if self.names.keys().isdisjoint((left, right, left + right[prefix:]))
            ]

    def mark(self, text: str) -> str:
        """The text with secret marks around it, for a template to place.

        White space stays outside of the marks, so that a template can still trim it.
        """
        content = text.strip()
        if not content:
            return text
        start = text.index(content)
        return f"{text[:start]}{self._first}{content}{self._last}{text[start + len(content) :]}"

    def place(self, rendered: str, texts: Sequence[str]) -> str:
        """Replace each marked number in a rendered prompt by the text of that number, marked."""
        return self._marked.sub(lambda match: self.mark(texts[int(match[1])]), rendered)

    def protect(self, rendered: str) -> str:
        """A rendered prompt for the renamed tokenizer: marked texts as they are, all else with renamed control tokens.

        Raises ValueError when a template has changed marked texts.
        """
        parts = self._marked.split(rendered)
        if any(mark in part for part in parts for mark in (self._first, self._last)):
            raise ValueError("the score_template changes the texts; set allow_special_tokens: true for this model")
        parts[::2] = map(self._rename, parts[::2])
        return "".join(parts)

    def _rename_controls(self, template: str) -> str:
        return self._controls.sub(lambda match: self.names[match[0]], template)


class PromptTokenizer:
    """A transformers tokenizer for prompts with marked texts. Attributes are those of the wrapped tokenizer.

    Not for several threads at once.
    """

    def __init__(self, tokenizer: Any, backend: Any, control: ControlTokens) -> None:
        """`backend` is the tokenizer's own, with renamed control tokens. Raises EngineStartError."""
        original = tokenizer._tokenizer
        for token, name in control.names.items():
            if _ids(original, token) != _ids(backend, name):
                raise EngineStartError(
                    f"the control token {token!r} cannot be kept apart from texts; set allow_special_tokens: true"
                )
        # vLLM's subclass passes every call to a copy that has the original backend.
        plain: Any = next(kind for kind in type(tokenizer).__mro__ if not kind.__module__.startswith("vllm."))
        self._wrapped = plain.__new__(plain)
        self._wrapped.__dict__.update(tokenizer.__dict__, _tokenizer=backend)
        self._control = control

    def __call__(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        second = None if text_pair is None else self._control.protect(text_pair)
        return self._wrapped(self._control.protect(text), second, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


def _ids(backend: Any, text: str) -> list[int]:
    """The ids of a text, without the padding that some tokenizers add."""
    encoding = backend.encode(text, add_special_tokens=False)
    return [number for number, is_text in zip(encoding.ids, encoding.attention_mask, strict=True) if is_text]


def _is_control(token: Mapping[str, Any]) -> bool:
    """Whether an added token is a control token, not a word or white space that was added to the vocabulary."""
    return bool(token["special"]) or not all(
        character.isalnum() or character.isspace() or character in _TEXT_LIKE for character in token["content"]
    )


def _pattern(token: Mapping[str, Any]) -> str:
    literal = re.escape(token["content"])
    return rf"(?<!\w){literal}(?!\w)" if token["single_word"] else literal
