"""Keys of the service as a whole: API keys, leaders of background work, the payload namespace, and the score cache."""

from shared.keys import PREFIX

API_KEYS = f"{PREFIX}api_keys"
RECONCILER_LEADER = f"{PREFIX}reconciler_leader"
PAYLOAD_NAMESPACE = f"{PREFIX}payload_namespace"
SWEEPER_LEADER = f"{PREFIX}sweeper_leader"
CACHED_SCORES = f"{PREFIX}scores"


def cached_score(digest: str) -> str:
    """A cached score; the empty digest gives the common prefix of all of them."""
    return f"{PREFIX}score:{digest}"


def rate(owner: str) -> str:
    """The common prefix of an owner's rates; the name of the limit follows."""
    return f"{PREFIX}rate:{owner}:"
