"""Sends thousands of requests, which schemathesis generates from the OpenAPI document, to a running service.

Fails if a response is a 5xx, has an undocumented status, or has a body or headers that differ from the documented ones.
Valid requests may be rejected, because a schema cannot express some rules (as many queries as texts, a key that was
already used for another body).
"""

import argparse
import re
import subprocess
import sys
import tempfile

from infra.local.install import environment_folder
from tests.stacks import running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
MIN_REQUESTS = 5_000
_TIMEOUT_SECONDS = 1800
_WAIT_SECONDS = "20"
"""Much longer than the lexical engine takes, so that a 504 is an error."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=25, help="requests per operation and generation method")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated requests")
    parser.add_argument("--at-least", type=int, default=MIN_REQUESTS, help="fail if fewer requests are sent")
    options = parser.parse_args(arguments)
    with running(environment={"RERANKQ_WAIT_SECONDS": _WAIT_SECONDS}) as stack, tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(environment_folder("fuzz") / "bin" / "schemathesis"), "run", f"{stack.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(options.examples), "--seed", str(options.seed)),
            *("--continue-on-failure", "--no-shrink", "--warnings", "off"),
        ]
        # In a temporary folder, because schemathesis stores its findings in the working directory.
        finished = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    print(finished.stdout)
    found = re.search(r"(\d+) generated", finished.stdout)
    sent = int(found[1]) if found else 0
    print(f"{sent} requests sent, at least {options.at_least} required; {summary(finished.returncode)}")
    return finished.returncode or int(sent < options.at_least)


def summary(status: int) -> str:
    return "no 5xx, no undocumented status, no undocumented shape" if status == 0 else "see the failures above"


if __name__ == "__main__":
    sys.exit(main())
