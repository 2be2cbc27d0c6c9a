"""Checks the lines of a batch with the models of `vllm run-batch`: `python -m tests.clients.vllm_lines`, in .venv.

Reads {"inputs": [...], "outputs": [...]} from standard input. Writes the names of vLLM's types for the bodies of the
inputs and of the outputs. A line that vLLM does not accept ends the process with pydantic's error.
"""

import importlib
import json
import os
import sys
import types
from typing import Any

MODULE = "vllm.entrypoints.launchers.run_batch"


def main() -> None:
    given = json.load(sys.stdin)
    # vLLM writes its log to standard output.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    models = _models()
    inputs = [models.BatchRequestInput.model_validate(line) for line in given["inputs"]]
    outputs = [models.BatchRequestOutput.model_validate(line) for line in given["outputs"]]
    json.dump(
        {
            "inputs": [type(line.body).__name__ for line in inputs],
            "outputs": [type(line.response.body).__name__ for line in outputs],
        },
        output,
    )
    output.close()


def _models() -> Any:
    """vLLM's module. It imports vLLM's server, and with it a package for certificates that .venv does not contain."""
    watchfiles = types.ModuleType("watchfiles")
    watchfiles.__dict__.update(Change=object, awatch=object)
    sys.modules.setdefault("watchfiles", watchfiles)
    return importlib.import_module(MODULE)


if __name__ == "__main__":
    main()
