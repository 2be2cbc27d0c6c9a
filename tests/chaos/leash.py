"""Runs a command that ends when whoever started it does: `python leash.py PARENT COMMAND ...`.

The parent of the chaos tests has threads, and a fork that runs Python in the child of such a process can hang; so the
leash is put on here, after the exec, and kept over the next one.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent has ended already")
    os.execv(command[0], command)
