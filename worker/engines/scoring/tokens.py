"""Converts texts to token ids with an immutable copy of the model's tokenizer. Adds no special tokens.

vLLM's and transformers' tokenizers store the truncation and padding of the last call, and would need a lock. This copy
stores none: threads use it concurrently, and the work is done outside of Python's global lock.
"""

import copy
from collections.abc import Sequence
from typing import Any

from worker.engines.base import EngineStartError


class TextTokens:
    """Token ids of bare texts. A text that the model cannot read gets None; other texts are unaffected."""

    def __init__(self, tokenizer: Any, *, vocabulary: int, lower_case: bool = False) -> None:
        """`tokenizer` is a transformers tokenizer; ids from `vocabulary` on are unknown to the model.

        Raises EngineStartError when it does not report the characters of its tokens.
        """
        backend = getattr(tokenizer, "_tokenizer", None)
        if backend is None or not hasattr(backend, "encode_batch_fast"):
            raise EngineStartError(
                "the model has no fast tokenizer (tokenizer.json), which is needed to truncate texts"
            )
        self._backend = copy.deepcopy(backend)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._vocabulary = vocabulary
        # Checked once: if the tokenizer stays within the vocabulary, tokens need no check.
        self._may_exceed = self._backend.get_vocab_size(with_added_tokens=True) > vocabulary
        self._lower_case = lower_case

    def ids(self, texts: Sequence[str]) -> list[list[int] | None]:
        """The ids of each text."""
        normalized = [self._normalize(text) for text in texts]
        try:
            encodings = self._backend.encode_batch_fast(normalized, add_special_tokens=False)
        except Exception:
            # One text contains an unpaired surrogate: find it.
            return [self._ids_or_none(text) for text in normalized]
        return [self._none_if_unknown(encoding.ids) for encoding in encodings]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The character range of each token in `text`, as (first, last + 1). For texts accepted by `ids`."""
        offsets: list[tuple[int, int]] = self._backend.encode(self._normalize(text), add_special_tokens=False).offsets
        return offsets

    def _ids_or_none(self, text: str) -> list[int] | None:
        try:
            return self._none_if_unknown(self._backend.encode(text, add_special_tokens=False).ids)
        except Exception:
            return None

    def _none_if_unknown(self, ids: list[int]) -> list[int] | None:
        return None if self._may_exceed and ids and max(ids) >= self._vocabulary else ids

    def _normalize(self, text: str) -> str:
        if not self._lower_case:
            return text
        lowered = text.lower()
        if len(lowered) == len(text):
            return lowered
        # Letters whose lower case has two characters are kept, otherwise all later offsets would be wrong.
        return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
