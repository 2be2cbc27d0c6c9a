"""What the tests of the wire share."""

from typing import Any


def masked(answer: Any) -> Any:
    """The body with `<name>` for what differs every time: ids, times, milliseconds."""
    if not isinstance(answer, dict):
        return answer
    for name, kind in (("id", str), ("created", int)):
        if name in answer:
            assert isinstance(answer[name], kind)
            answer[name] = f"<{name}>"
    if "latency" in (extra := answer.get("extra_fields", {})):
        assert isinstance(extra["latency"], int)
        extra["latency"] = "<latency>"
    return answer
