"""Renders the selected fields of object documents to the text that is scored.

The text is YAML, as in Cohere's API: block style, the fields in the order of `rank_fields`, absent and null fields
skipped. `text` alone is rendered as plain text. String documents have no fields and are scored as they are.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from shared.errors import InvalidRequest

# The dumper in C is ten times as fast; PyYAML built without libyaml lacks it.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NO_WRAPPING = 2**31 - 1
_BEYOND_16_BITS = re.compile("[\U00010000-\U0010ffff]")
_TEXT_ALONE = {"text": 0}
_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True, slots=True)
class RankFields:
    """The fields to score, with their order."""

    places: Mapping[str, int]

    @classmethod
    def read(cls, body: Mapping[str, Any], documents: Sequence[Any]) -> "RankFields | None":
        """The body's `rank_fields`; None when it has none, or no document has fields. Raises InvalidRequest."""
        names = body.get("rank_fields")
        if names is None or names == []:
            return None
        if not isinstance(names, list):
            raise InvalidRequest("rank_fields must be a list of strings", param="rank_fields")
        objects = [document for document in documents if isinstance(document, dict)]
        there = {name for document in objects for name, value in document.items() if value is not None}
        for place, name in enumerate(names):
            param = f"rank_fields[{place}]"
            if not isinstance(name, str) or not name:
                raise InvalidRequest(f"{param} must be a string, and not empty", param=param)
            if objects and name not in there:
                raise InvalidRequest(f"{param}: no document has a field {name[:100]!r}", param=param)
        return cls({name: place for place, name in enumerate(dict.fromkeys(names))}) if objects else None

    def render(self, param: str, document: Mapping[str, Any]) -> str:
        """The text of an object that is scored.

        Raises InvalidRequest, naming `param`, when it has none of the fields.
        """
        # Fast for many rank_fields and many fields: no list is searched.
        found = [name for name, value in document.items() if value is not None and name in self.places]
        picked = {name: document[name] for name in sorted(found, key=self.places.__getitem__)}
        if not picked:
            raise InvalidRequest(f"{param} has none of the rank_fields", param=param)
        if self.places == _TEXT_ALONE and isinstance(picked["text"], str):
            # The default, given explicitly.
            return str(picked["text"])
        text = _dump(picked)
        # libyaml escapes letters beyond 16 bits. They are dumped as private-use letters instead, and replaced back.
        return _dump_with_stand_ins(picked) if "\\U" in text else text


def _dump(fields: Mapping[str, Any]) -> str:
    dumped: str = yaml.dump(
        fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=_NO_WRAPPING
    )
    return dumped


def _dump_with_stand_ins(fields: Mapping[str, Any]) -> str:
    """Dump each letter beyond 16 bits as an unused private-use letter, and replace it back in the result."""
    source = json.dumps(fields, ensure_ascii=False)
    letters = sorted(set(_BEYOND_16_BITS.findall(source)))
    free = (code for code in _PRIVATE_USE if chr(code) not in source)
    stand_ins = {ord(letter): code for letter, code in zip(letters, free, strict=False)}
    dumped = _dump(json.loads(source.translate(stand_ins)))
    return dumped.translate({code: letter for letter, code in stand_ins.items()})
