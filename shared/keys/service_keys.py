"""Keys of the service as a whole: API keys, the reconciler's leader, and the score cache."""

from shared.keys import PREFIX

API_KEYS = f"{PREFIX}api_keys"
RECONCILER_LEADER = f"{PREFIX}reconciler_leader"
CACHED_SCORES = f"{PREFIX}scores"


def cached_score(digest: str) -> str:
    """A cached score; the empty digest gives the common prefix of all of them."""
    return f"{PREFIX}score:{digest}"


def rate(owner: str) -> str:
    """The common prefix of an owner's rates; the name of the limit follows."""
    return f"{PREFIX}rate:{owner}:"
