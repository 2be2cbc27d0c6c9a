"""Reads API keys from a mounted file (YAML), for deployments that keep their configuration in a repository.

The file has the keys' records, with the SHA-256 of each key; `python -m api keys create NAME --entry` prints one.
"""

import logging
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from api.auth.key_store import KeyRecord
from shared.errors import ConfigurationError

logger = logging.getLogger(__name__)

_RECORDS = TypeAdapter(list[KeyRecord])


class KeyFile:
    """The keys in a file. A file that becomes invalid is reported, and its last valid keys stay in force."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError when the file cannot be read or is invalid."""
        self._path = path
        # Before the file is read: a change in between is noticed later.
        self._seen = self._version()
        self._records = self._read()

    def records(self) -> list[KeyRecord]:
        """The keys; reads the file again when it has changed."""
        if (version := self._version()) != self._seen:
            self._seen = version
            try:
                self._records = self._read()
            except ConfigurationError as error:
                logger.error("the key file cannot be read; the last valid keys stay in force", extra={"error": error})
        return self._records

    def _version(self) -> tuple[int, int] | None:
        # Kubernetes replaces a link when a mounted secret changes; stat follows it.
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def _read(self) -> list[KeyRecord]:
        try:
            content = yaml.safe_load(self._path.read_text())
            records = _RECORDS.validate_python((content or {}).get("keys"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in ("keys", *first["loc"]))
            raise ConfigurationError(f"{self._path}: {place}: {first['msg']}", param="keys_file") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(f"{self._path} cannot be read: {reason}", param="keys_file") from error
        if len({record.id for record in records}) < len(records):
            raise ConfigurationError(f"{self._path}: two keys have the same id", param="keys_file")
        return records
