"""Requests that a generator writes from the OpenAPI document, by the thousand, to a running service.

Passes when no answer is a 5xx, has a status that the document does not name, or a body or headers that are not what it
says of that status. Whether a request that fits the document is taken is not asked here: some rules have no place in a
schema (as many queries as texts, a key that stands for another body).
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
AT_LEAST = 5_000
_LONGEST_SECONDS = 1800
_WAIT_SECONDS = "20"
"""Much longer than the engine takes that compares words: a 504 would be a find."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=25, help="requests for each operation and way of writing them")
    parser.add_argument("--seed", type=int, default=1, help="the same requests for the same seed")
    parser.add_argument("--at-least", type=int, default=AT_LEAST, help="fail when fewer requests were sent")
    options = parser.parse_args(arguments)
    with running(environment={"RERANKQ_WAIT_SECONDS": _WAIT_SECONDS}) as stack, tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(environment_folder("fuzz") / "bin" / "schemathesis"), "run", f"{stack.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(options.examples), "--seed", str(options.seed)),
            *("--continue-on-failure", "--no-shrink", "--warnings", "off"),
        ]
        # In a folder of its own: it keeps what it has found beside itself.
        ended = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=_LONGEST_SECONDS, check=False
        )
    print(ended.stdout)
    found = re.search(r"(\d+) generated", ended.stdout)
    sent = int(found[1]) if found else 0
    print(f"{sent} requests, at least {options.at_least} were asked for; {verdict(ended.returncode)}")
    return ended.returncode or int(sent < options.at_least)


def verdict(status: int) -> str:
    return "no 5xx, no undocumented status, no undocumented shape" if status == 0 else "see above for what was found"


if __name__ == "__main__":
    sys.exit(main())
