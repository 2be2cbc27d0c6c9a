"""Unfinished multipart uploads of an S3 bucket: finds and aborts those that a killed process left.

obstore cannot list uploads, so this module sends two kinds of signed requests itself (AWS Signature Version 4).
Refuses to search for credentials: without an access key in the environment it removes nothing.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from api.payloads.base import unavailable

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 20.0
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class _Upload:
    key: str
    id: str
    started: float


@dataclass(frozen=True, slots=True)
class UnfinishedUploads:
    """The unfinished uploads below a prefix. `endpoint` is the server's URL, `address` that of the bucket."""

    endpoint: str
    address: str
    prefix: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)

    @classmethod
    def from_environment(cls, bucket: str, prefix: str) -> Self:
        """Read the AWS_* variables that obstore also reads."""
        get = os.environ.get
        region = get("AWS_REGION") or get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL") or get("AWS_ENDPOINT") or ""
        if get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("true", "1", "yes", "on"):
            address = endpoint or f"https://{bucket}.s3.{region}.amazonaws.com"
        else:
            address = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/") + f"/{bucket}"
        return cls(
            endpoint,
            address.rstrip("/"),
            f"{prefix}/" if prefix else "",
            region,
            get("AWS_ACCESS_KEY_ID", ""),
            get("AWS_SECRET_ACCESS_KEY", ""),
            get("AWS_SESSION_TOKEN", ""),
        )

    async def abort_old(self, older_than_seconds: float) -> int:
        """Abort the uploads that began at least this long ago. Returns how many. Raises PayloadsUnavailable."""
        if not (self.access_key and self.secret_key):
            logger.info("without AWS_ACCESS_KEY_ID, a lifecycle rule of the bucket must abort unfinished uploads")
            return 0
        return await asyncio.to_thread(self._abort_before, time.time() - older_than_seconds)

    def _abort_before(self, before: float) -> int:
        aborted = 0
        try:
            for upload in self._list():
                if upload.started <= before:
                    self._request("DELETE", f"/{upload.key}", {"uploadId": upload.id})
                    aborted += 1
        except (OSError, ElementTree.ParseError, ValueError) as error:
            raise unavailable(error) from error
        return aborted

    def _list(self) -> Iterator[_Upload]:
        marker: dict[str, str] = {}
        while True:
            answer = ElementTree.fromstring(self._request("GET", "", {"uploads": "", "prefix": self.prefix} | marker))
            for upload in answer.iterfind("{*}Upload"):
                started = datetime.fromisoformat(upload.findtext("{*}Initiated", ""))
                yield _Upload(upload.findtext("{*}Key", ""), upload.findtext("{*}UploadId", ""), started.timestamp())
            if answer.findtext("{*}IsTruncated") != "true":
                return
            marker = {
                "key-marker": answer.findtext("{*}NextKeyMarker", ""),
                "upload-id-marker": answer.findtext("{*}NextUploadIdMarker", ""),
            }

    def _request(self, method: str, path: str, query: dict[str, str]) -> bytes:
        """The body of the server's answer. Raises OSError; an upload that has ended meanwhile is none."""
        url = self.address + quote(path, safe="/~") + "?" + urlencode(sorted(query.items()), quote_via=quote, safe="~")
        headers = self._sign(method, url, datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
        request = urllib.request.Request(url, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                if method == "DELETE" and error.code == 404:
                    return b""
                raise
        return body

    def _sign(self, method: str, url: str, now: str) -> dict[str, str]:
        """The headers of a signed request without a body. `now` is like 20300131T235959Z."""
        parts = urlsplit(url)
        headers = {"host": parts.netloc, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": now}
        if self.session_token:
            headers["x-amz-security-token"] = self.session_token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join((method, parts.path or "/", parts.query, lines, names, _EMPTY_SHA256))
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join(("AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret_key}".encode()
        for step in scope.split("/"):
            key = hmac.digest(key, step.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers
