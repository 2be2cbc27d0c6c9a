"""Finds where a long text can be cut, so that the tokens on one side do not depend on the text on the other side.

A cut is made after a letter or digit and before a *stop*: white space or a punctuation mark at which this tokenizer
certainly separates tokens. What is certain follows from the parts of the tokenizer: the added tokens, the normalizer,
the pre-tokenizer and the vocabulary. A tokenizer with an unknown part has no stops, and its texts are never cut.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from worker.engines.scoring.pre_tokenizers import read_as, separates

# Not among them: the apostrophe (contractions), "_" (a word character), "<", "=" and ">" (a combining mark that follows
# changes them).
_CANDIDATES = ' \n\t!"#$%&()*+,-./:;?@[\\]^`{|}~。、，！？：；（）「」『』【】《》…।،؟۔'
_NORMALIZERS = {
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Strip",
    "StripAccents",
}  # fmt: skip
"""Normalizers that change characters one by one, or together with combining marks, or only at the ends of the text."""
_SPACE_PATTERNS = {" {2,}", " +", r"\s+"}
_MODELS = {"BPE", "Unigram", "WordPiece", "WordLevel"}
_LETTER = r"[^\s\0▁!-/:-@\[-`{-~]"
"""All that a letter or digit may become when it is normalized: letters, digits, marks and symbols."""


class TextCuts:
    """Where the texts of one tokenizer can be cut."""

    def __init__(self, tokenizer: dict[str, Any], normalize: Callable[[str], str]) -> None:
        """`tokenizer` is a tokenizer.json, `normalize` its normalizer."""
        prefix, suffix = _stops(tokenizer, normalize)
        self._prefix_cut, self._suffix_cut = _after_letter(prefix), _after_letter(suffix)

    def next(self, text: str, start: int, *, keep_end: bool = False) -> int | None:
        """The first cut at character `start` or later.

        The tokens of the text before the cut do not depend on the text after it; with `keep_end`, neither do those
        after it depend on the text before it, unless that is empty.
        """
        pattern = self._suffix_cut if keep_end else self._prefix_cut
        for match in pattern.finditer(text, start):
            cut = match.start()
            if not _is_ordinary(text[cut - 1]):
                continue
            # Normalizers report wrong offsets when they delete characters at the beginning of a text.
            if not keep_end or (text[cut + 1 : cut + 2].isalnum() and _is_ordinary(text[cut + 1])):
                return cut
        return None


def _after_letter(stops: Iterable[str]) -> re.Pattern[str]:
    stops = "".join(stops)
    return re.compile(rf"(?<=[^\W_])[{re.escape(stops)}]" if stops else r"(?!)")


def _is_ordinary(letter: str) -> bool:
    """Whether the letter or digit stays one, alone, in every normalizer, and joins no character after it."""
    if letter.isascii():
        return True
    # Conjoining jamo and U+0D4E form one character with what follows; presentation forms, from U+F900 on, are replaced.
    if letter >= "\uf900" or "\u1100" <= letter <= "\u11ff" or letter == "\u0d4e":
        return False
    return unicodedata.is_normalized("NFKC", letter)


def _stops(tokenizer: dict[str, Any], normalize: Callable[[str], str]) -> tuple[set[str], set[str]]:
    """The stops for cuts that keep the text before them, and for cuts that keep the text after them."""
    model = tokenizer["model"]
    if not _knows_normalizer(tokenizer["normalizer"]) or model["type"] not in _MODELS or model.get("dropout"):
        return set(), set()
    added = [token["content"] for token in tokenizer["added_tokens"]]
    normalized = {stop: read for stop in _CANDIDATES if (read := _normalized_stop(normalize, stop))}
    inside_added = _after_letters([*added, *map(normalize, added)], {*normalized.keys(), *normalized.values()})
    pre_tokenizer = tokenizer["pre_tokenizer"]
    joins = _Joins(model, {read_as(pre_tokenizer, read) for read in normalized.values()})
    prefix, suffix = set(), set()
    for stop, read in normalized.items():
        if stop in inside_added or read in inside_added:
            continue
        separated = separates(pre_tokenizer, read)
        if separated is None:
            return set(), set()
        if separated:
            prefix.add(stop)
            suffix.add(stop)
        elif joins.separates(read_as(pre_tokenizer, read)):
            prefix.add(stop)
            # A unigram model adds up scores from the beginning: another beginning rounds differently.
            suffix |= set() if model["type"] == "Unigram" else {stop}
    return prefix, suffix


def _knows_normalizer(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None or normalizer["type"] in _NORMALIZERS:
        return True
    if normalizer["type"] == "Sequence":
        return all(map(_knows_normalizer, normalizer["normalizers"]))
    if normalizer["type"] == "Replace":
        pattern = normalizer["pattern"]
        # Where a match contains no letter, none begins before a cut and ends after it.
        literal = pattern.get("String")
        return pattern.get("Regex") in _SPACE_PATTERNS if literal is None else not any(map(str.isalnum, literal))
    return False


def _normalized_stop(normalize: Callable[[str], str], stop: str) -> str:
    """The first character of what the normalizer makes of a stop between two letters; empty when it joins them."""
    read = normalize(f"a{stop}a")
    between = read[read.find("a") + 1 : read.rfind("a")]
    return "" if any(map(str.isalnum, between)) else between[:1]


def _after_letters(pieces: Iterable[str], stops: set[str]) -> set[str]:
    """The stops that come after a letter, digit, mark or symbol in any of the pieces."""
    pattern = f"[{re.escape(''.join(stops))}](?<={_LETTER}.)" if stops else r"(?!)"
    return set(re.findall(pattern, "\0".join(pieces), re.DOTALL))


class _Joins:
    """Whether a model can read a letter and the stop after it as one token, where no pre-tokenizer separates them."""

    def __init__(self, model: dict[str, Any], stops: set[str]) -> None:
        self._model = model
        self._stops = stops
        self._found: tuple[set[str], set[str]] | None = None

    def separates(self, stop: str) -> bool:
        """Whether no token has both."""
        if self._model["type"] not in ("BPE", "Unigram") or self._model.get("end_of_word_suffix"):
            return False
        if self._found is None:
            vocabulary = self._model["vocab"]
            pieces = list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
            self._found = {piece for piece in pieces if len(piece) == 1}, _after_letters(pieces, self._stops)
        known, joined = self._found
        # Neighbouring unknown characters become one token.
        return stop in known and stop not in joined
