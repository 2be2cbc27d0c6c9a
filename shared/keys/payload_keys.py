"""Keys of payloads: large files, when they are stored in Redis (api/payloads/redis_store.py)."""

from shared.keys import PREFIX

PAYLOADS = f"{PREFIX}payloads"
UNFINISHED_PAYLOADS = f"{PREFIX}payloads_unfinished"


def payload(name: str) -> str:
    return f"{PREFIX}payload:{name}"


def payload_data(version: str) -> str:
    return f"{PREFIX}payload_data:{version}"
