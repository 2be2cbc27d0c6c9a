"""Runs a command that is killed when its parent process ends: `python die_with_parent.py PARENT_PID COMMAND ...`.

The test process has threads, and a child forked from it can hang when it runs Python code before its exec. Therefore
this script sets the parent-death signal after the exec; the signal survives the next exec.
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
        sys.exit("the parent process has already ended")
    os.execv(command[0], command)
