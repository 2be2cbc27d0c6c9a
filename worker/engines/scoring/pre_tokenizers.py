"""Whether a pre-tokenizer separates a letter or digit from the white space or punctuation mark after it.

Knows the pre-tokenizers that look at single characters, and the regular expressions of widespread tokenizers.
"""

import string
import unicodedata
from typing import Any

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PATTERNS = {
    # GPT-2
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # Llama 3
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_END}",
    # Qwen 2 and 3
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_END}",
    # o200k
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_END}",
}
"""In all of them a letter or digit ends its match before white space and punctuation marks, but for the apostrophe."""


def separates(pre_tokenizer: dict[str, Any] | None, stop: str) -> bool | None:
    """Whether it separates a letter or digit from `stop`, a normalized character. None: it is unknown."""
    if pre_tokenizer is None:
        return False
    match pre_tokenizer["type"]:
        case "Sequence":
            parts = pre_tokenizer["pretokenizers"]
            found = [separates(part, stop) for part in parts]
            # After these the characters are others, so that nothing is known of what follows.
            replaced = any(part["type"] in ("ByteLevel", "Metaspace") for part in parts[:-1])
            return None if None in found or replaced else any(found)
        case "BertPreTokenizer" | "Whitespace":
            return stop.isspace() or _is_punctuation(stop)
        case "WhitespaceSplit":
            return stop.isspace()
        case "Punctuation":
            return _is_punctuation(stop) and pre_tokenizer["behavior"] != "MergedWithPrevious"
        case "Digits":
            return False
        case "Metaspace":
            return bool(pre_tokenizer["split"]) and stop in (" ", pre_tokenizer["replacement"])
        case "ByteLevel":
            return bool(pre_tokenizer["use_regex"]) and stop != "'"
        case "Split":
            return _split_separates(pre_tokenizer, stop)
        case _:
            return None


def read_as(pre_tokenizer: dict[str, Any] | None, stop: str) -> str:
    """The stop as the model reads it: a metaspace pre-tokenizer replaces spaces."""
    if pre_tokenizer is None:
        return stop
    for part in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if part["type"] == "Metaspace" and stop == " ":
            return str(part["replacement"])
    return stop


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _split_separates(split: dict[str, Any], stop: str) -> bool | None:
    pattern = split["pattern"]
    if pattern.get("String") == " ":
        return False
    matches_kept = (split["behavior"], split["invert"]) in (("Isolated", False), ("Removed", True))
    return stop != "'" if pattern.get("Regex") in _PATTERNS and matches_kept else None
