"""Converts texts to token ids with an immutable copy of the model's tokenizer. Adds no special tokens.

vLLM's and transformers' tokenizers store the truncation and padding of the last call, and would need a lock. This copy
stores none: threads use it concurrently, and the work is done outside of Python's global lock.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.engines.base import EngineStartError
from worker.engines.scoring.control_tokens import ControlTokens
from worker.engines.scoring.text_cuts import TextCuts

_CHARACTERS_PER_TOKEN = 8
"""More than most texts have, so that one part of a long text is usually enough."""
_DENSE = 3
"""A text whose letters take three bytes, like Chinese, has so many times fewer characters per token."""
_SAMPLE = 64
_SMALLEST_PART = 256
"""In characters. Below, a cut saves nothing."""
_GROWTH = 2

Offsets = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a text: the characters from `start` to the cut, or from `start` on.

    Only the tokens after its first `skipped` characters are those of the whole text.
    """

    text: str
    is_whole: bool
    start: int = 0
    skipped: int = 0


class TextTokens:
    """Token ids of bare texts. A text that the model cannot read gets None; other texts are unaffected.

    Control tokens in a text are plain characters, unless `allow_special_tokens`. A text of which only `at_most` tokens
    are wanted is tokenized as far as they need, where the tokenizer is known to allow that.
    """

    def __init__(
        self, tokenizer: Any, *, vocabulary: int, lower_case: bool = False, allow_special_tokens: bool = False
    ) -> None:
        """`tokenizer` is a transformers tokenizer; ids from `vocabulary` on are unknown to the model.

        Raises EngineStartError when it does not report the characters of its tokens.
        """
        backend = getattr(tokenizer, "_tokenizer", None)
        if backend is None or not hasattr(backend, "encode_batch_fast"):
            raise EngineStartError(
                "the model has no fast tokenizer (tokenizer.json), which is needed to truncate texts"
            )
        content = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        self.control = None if allow_special_tokens else ControlTokens(content["added_tokens"])
        if self.control is not None:
            self.control.rename_in(content)
        self.backend = type(backend).from_str(json.dumps(content, ensure_ascii=False, check_circular=False))
        normalizer = self.backend.normalizer
        self._cuts = TextCuts(content, str if normalizer is None else normalizer.normalize_str)
        self._vocabulary = vocabulary
        # Checked once: if the tokenizer stays within the vocabulary, tokens need no check.
        self._may_exceed = self.backend.get_vocab_size(with_added_tokens=True) > vocabulary
        self._lower_case = lower_case

    def ids(
        self, texts: Sequence[str], at_most: int | None = None, *, keep_end: bool = False
    ) -> list[list[int] | None]:
        """The ids of each text.

        Of a text with more than `at_most` tokens it may be the first ones only, or the last ones with `keep_end`, but
        more than `at_most`: a caller sees by the number that there are more than it wanted.
        """
        if at_most is None:
            return self._encode([self._normalize(text) for text in texts])
        found: list[list[int] | None] = [None] * len(texts)
        waiting = list(range(len(texts)))
        length = _first_length(at_most)
        while waiting:
            parts = [self._part(texts[position], length, keep_end) for position in waiting]
            encoded = self._encode([self._normalize(part.text) for part in parts])
            for position, part, ids in zip(waiting, parts, encoded, strict=True):
                found[position] = ids if ids is None or not part.skipped else ids[self._skipped_tokens(part) :]
            waiting = [
                position
                for position, part in zip(waiting, parts, strict=True)
                if not part.is_whole and (ids := found[position]) is not None and len(ids) <= at_most
            ]
            length *= _GROWTH
        return found

    def offsets(self, text: str, at_most: int | None = None, *, keep_end: bool = False) -> Offsets:
        """The character range of each token in `text`, as (first, last + 1). For texts accepted by `ids`.

        With `at_most`, of the first tokens only (the last ones with `keep_end`), but of at least so many.
        """
        length = len(text) if at_most is None else _first_length(at_most)
        while True:
            part = self._part(text, length, keep_end)
            offsets: Offsets = self.backend.encode(self._normalize(part.text), add_special_tokens=False).offsets
            if part.skipped:
                offsets = [
                    (part.start + first, part.start + end) for first, end in offsets[self._skipped_tokens(part) :]
                ]
            if part.is_whole or at_most is None or len(offsets) >= at_most:
                return offsets
            length *= _GROWTH

    def _part(self, text: str, length: int, keep_end: bool) -> _Part:
        """A part of about `length` characters at the beginning or end of the text; the whole where it cannot be cut."""
        if len(text) <= length:
            return _Part(text, is_whole=True)
        sample = text[-_SAMPLE:] if keep_end else text[:_SAMPLE]
        if len(sample.encode(errors="surrogatepass")) > 2 * len(sample):
            length //= _DENSE
        if not keep_end:
            end = self._cuts.next(text, length)
            part = None if end is None else _Part(text[:end], is_whole=False)
        else:
            # The beginning of a text is read in its own way, so the tokens before the second cut are not used.
            start = self._cuts.next(text, len(text) - length, keep_end=True)
            second = None if start is None else self._cuts.next(text, start + 1, keep_end=True)
            part = None
            if start is not None and second is not None:
                part = _Part(text[start:], is_whole=False, start=start, skipped=second - start)
        # The lower case of a sigma depends on its neighbours.
        if part is None or (self._lower_case and "Σ" in part.text):
            return _Part(text, is_whole=True)
        return part

    def _skipped_tokens(self, part: _Part) -> int:
        return len(self.backend.encode(self._normalize(part.text[: part.skipped]), add_special_tokens=False).ids)

    def _encode(self, texts: list[str]) -> list[list[int] | None]:
        try:
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        except Exception:
            # One text contains an unpaired surrogate: find it.
            return [self._ids_or_none(text) for text in texts]
        return [self._none_if_unknown(encoding.ids) for encoding in encodings]

    def _ids_or_none(self, text: str) -> list[int] | None:
        try:
            return self._none_if_unknown(self.backend.encode(text, add_special_tokens=False).ids)
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


def _first_length(at_most: int) -> int:
    return max(at_most * _CHARACTERS_PER_TOKEN, _SMALLEST_PART)
