"""Times as other systems write them."""

from datetime import UTC, datetime


def rfc3339(milliseconds: int) -> str:
    """A Unix time in milliseconds as in RFC 3339, in UTC."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
