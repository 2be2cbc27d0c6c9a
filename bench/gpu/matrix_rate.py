"""Program that measures how fast the device multiplies matrices: the upper bound for any engine on it.

Reads {"dtype", "size"} as JSON from standard input, and prints the device's name, whether it is a CUDA device, and
TFLOP/s. Without a CUDA device it measures the CPU.
"""

import json
import sys
import time

import torch

_SECONDS = 1.0
_WARM_UP = 3


def main() -> None:
    order = json.load(sys.stdin)
    cuda = torch.cuda.is_available()
    # Half precision is slow on many CPUs, and a CPU only tries this program.
    dtype, size = (order["dtype"], order["size"]) if cuda else ("float32", order["size"] // 8)
    device = "cuda" if cuda else "cpu"
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    for _ in range(_WARM_UP):
        left @ right
    wait(cuda)
    count = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < _SECONDS:
        for _ in range(_WARM_UP):
            left @ right
        wait(cuda)
        count += _WARM_UP
    found = {
        "name": torch.cuda.get_device_name() if cuda else "",
        "cuda": cuda,
        "dtype": dtype,
        "matrix_size": size,
        "matrix_tflops": count * 2 * size**3 / elapsed / 1e12,
    }
    print(json.dumps(found))


def wait(cuda: bool) -> None:
    """Wait until the device has done its work: CUDA computes asynchronously."""
    if cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
