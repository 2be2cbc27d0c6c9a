"""Which dialect speaks where: the superset at the root, every other one under its own prefix."""

from api.dialects.base import Dialect
from api.dialects.infinity import InfinityDialect
from api.dialects.superset import SupersetDialect

ROOT: Dialect = SupersetDialect()
PREFIXED: tuple[Dialect, ...] = (InfinityDialect("infinity"), InfinityDialect("nebul"))

_BY_NAME: dict[str, Dialect] = {dialect.name: dialect for dialect in (ROOT, *PREFIXED)}


def by_name(name: str) -> Dialect:
    """The dialect a job was submitted in. Raises KeyError."""
    return _BY_NAME[name]


def by_path(path: str) -> Dialect:
    """The dialect whose prefix the path has, the root's otherwise."""
    prefix = path.lstrip("/").partition("/")[0]
    return _BY_NAME.get(prefix, ROOT)
