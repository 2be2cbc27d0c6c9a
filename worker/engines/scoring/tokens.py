"""Texts to token ids, with a tokenizer of our own that never changes. Knows no model and adds no special tokens.

A copy of the model's, because vLLM's and transformers' keep the truncation and padding they were last asked for, so
that a lock would be needed around them. This one keeps none: any number of threads may use it at once, and the work
is done outside of Python's global lock.
"""

import copy
from collections.abc import Sequence
from typing import Any

from worker.engines.base import EngineStartError


class TextTokens:
    """Token ids of bare texts. A text that has none for this model gets None, and harms no other."""

    def __init__(self, tokenizer: Any, *, vocabulary: int, lower_case: bool = False) -> None:
        """`tokenizer` is one of transformers'; a token from `vocabulary` on is one that the model does not know.

        Raises EngineStartError when it cannot tell which characters a token came from.
        """
        backend = getattr(tokenizer, "_tokenizer", None)
        if backend is None or not hasattr(backend, "encode_batch_fast"):
            raise EngineStartError("the model has no fast tokenizer (tokenizer.json), which is needed to cut texts")
        self._backend = copy.deepcopy(backend)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._vocabulary = vocabulary
        # Asked once: a tokenizer within the vocabulary needs no look at every token.
        self._may_exceed = self._backend.get_vocab_size(with_added_tokens=True) > vocabulary
        self._lower_case = lower_case

    def ids(self, texts: Sequence[str]) -> list[list[int] | None]:
        """The ids of each text."""
        prepared = [self._prepared(text) for text in texts]
        try:
            encodings = self._backend.encode_batch_fast(prepared, add_special_tokens=False)
        except Exception:
            # One of them is no Unicode (a lone surrogate): find out which.
            return [self._alone(text) for text in prepared]
        return [self._known(encoding.ids) for encoding in encodings]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Each token's characters in `text`, as (first, last + 1). For texts that `ids` has read."""
        offsets: list[tuple[int, int]] = self._backend.encode(self._prepared(text), add_special_tokens=False).offsets
        return offsets

    def _alone(self, text: str) -> list[int] | None:
        try:
            return self._known(self._backend.encode(text, add_special_tokens=False).ids)
        except Exception:
            return None

    def _known(self, ids: list[int]) -> list[int] | None:
        return None if self._may_exceed and ids and max(ids) >= self._vocabulary else ids

    def _prepared(self, text: str) -> str:
        if not self._lower_case:
            return text
        lowered = text.lower()
        if len(lowered) == len(text):
            return lowered
        # A few letters become two: they are left as they are, or every offset behind them would be wrong.
        return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
