"""Makes `.venv` and fills it from the locks in `requirements/`; run by the Makefile with the system's Python.

Owns the virtual environments (`.venv`, and one for each set of client libraries) and their stamps (what is installed).
Refuses packages that no lock names, and interpreters that the locks were not made for. Recreates an environment that
was moved, or left incomplete by an interrupted installation.
Standard library only, in syntax that Python 3.8 can parse: an old interpreter prints a sentence, not a traceback.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from infra.local.progress import Pip, Progress

ROOT = Path(__file__).resolve().parents[2]
# The locks of each set, in order of installation. `check` needs no engine: the type check skips vLLM and torch.
SETS = {
    "run": ("torch-cpu", "worker-cpu", "local", "model"),
    "test": ("torch-cpu", "worker-cpu", "local", "model", "dev"),
    "check": ("api", "local", "dev"),
    # The benchmarks also measure vLLM's own server: the lock adds its requirements and changes no other package.
    "bench": ("torch-cpu", "worker-cpu", "local", "model", "vllm-server"),
    # Published client libraries. Their pins conflict, so each set has its own environment.
    "clients-sdks": ("clients-sdks",),
    "clients-frameworks": ("clients-frameworks",),
    "clients-infinity": ("clients-infinity",),
    "clients-queues": ("clients-queues",),
    # Generates requests from the OpenAPI document.
    "fuzz": ("fuzz",),
    # Other software that the benchmarks compare with.
    "peers-onnx": ("torch-cpu", "peers-onnx"),
    "peers-sentence-transformers": ("torch-cpu", "peers-sentence-transformers"),
    "peers-infinity": ("torch-cpu", "peers-infinity"),
}
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# A quarter of all code and rarely imported: compiled on first import instead.
RARELY_IMPORTED = r"/tests?/|/transformers/models/"
PYTHONS = ("3.11", "3.12", "3.13")
PROBE = "import sys; print('%d.%d' % sys.version_info[:2]); import ensurepip, venv; print('venv')"
# Variables of the user's shell that would redirect or prevent the installation.
UNWANTED = re.compile(
    r"PYTHON.*|VIRTUAL_ENV|__PYVENV.*|PIP_(TARGET|PREFIX|ROOT|USER|PYTHON|CONSTRAINT|REQUIREMENT|DRY_RUN"
    r"|REQUIRE_HASHES|REQUIRE_VIRTUALENV|QUIET|LOG)"
)


class Refused(Exception):
    """The installation is impossible; the message is one sentence for the user."""


def environment_folder(name: str) -> Path:
    """The environment that a set is installed in."""
    return ROOT / (f".venv-{name}" if name.startswith(("clients-", "fuzz", "peers-")) else ".venv")


def read(path: Path) -> str:
    """The file's text; empty when it does not exist."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def identity(venv: Path) -> str:
    """The environment's path and interpreter: a change of either breaks it."""
    return f"{venv}\n{os.path.realpath(venv / 'bin' / 'python')}\n"


def is_whole(venv: Path) -> bool:
    """Whether the environment was created here, by a Python that still exists, and is complete."""
    return (venv / "bin" / "python").exists() and read(venv / ".whole") == identity(venv)


def stamp(venv: Path, lock: Path) -> str:
    """The stamp of an installed lock: a digest of its contents and the Python version."""
    version = re.search(r"^version.*", read(venv / "pyvenv.cfg"), re.MULTILINE)
    return f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {version.group() if version else ''}\n"


def missing(venv: Path, locks: list[Path]) -> list[Path]:
    """The locks that are not installed in their current version."""
    whole = is_whole(venv)
    return [lock for lock in locks if not whole or read(venv / f".stamp-{lock.stem}") != stamp(venv, lock)]


def environment() -> dict[str, str]:
    """The user's environment without the variables that would change the installation."""
    clean = {name: value for name, value in os.environ.items() if not UNWANTED.fullmatch(name)}
    return {**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def pick_python() -> str:
    """A supported interpreter: this one, or one on the PATH."""
    found = [sys.executable, *filter(None, (shutil.which(f"python{version}") for version in PYTHONS))]
    incomplete = ""
    for path in found:
        probe = subprocess.run(
            [path, "-I", "-c", PROBE], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        words = probe.stdout.decode().split()
        if words and words[0] in PYTHONS:
            if "venv" in words:
                return path
            incomplete = incomplete or words[0]
    if incomplete:
        raise Refused(f"Python {incomplete} has no venv module; on Debian, Ubuntu: apt install python3-venv")
    this = sys.version.split()[0]
    raise Refused(f"This needs Python {', '.join(PYTHONS)}; python3 is {this} and the PATH has no other.")


def require_system(locks: list[Path]) -> None:
    """Check for system libraries, which no wheel contains, before anything is downloaded."""
    if any(lock.stem == "worker-cpu" for lock in locks):
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            raise Refused(
                "vLLM's CPU build needs the system library libnuma; install it and run this again"
                " (Debian, Ubuntu: apt-get install libnuma1; Fedora: dnf install numactl-libs)."
            ) from None


def execute(command: list[str], log: Path, progress: Progress, pip: Pip) -> bool:
    """Runs a Python module, logs its output and shows its progress. Returns whether it succeeded."""
    with log.open("ab") as output, log.open("rb") as tail:
        tail.seek(0, os.SEEK_END)
        # close_fds=False passes the lock on: no other installation starts while pip runs.
        child = subprocess.Popen(
            [command[0], "-I", "-m", *command[1:]],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            close_fds=False,
        )
        try:
            while child.poll() is None:
                time.sleep(0.1)
                pip.feed(*tail)
                progress.show(str(pip))
        except SystemExit:  # a kill reaches only this process, Ctrl-C the whole group
            child.send_signal(signal.SIGINT)
            raise
        finally:
            try:
                child.wait(5)  # pip deletes its temporary files
            except subprocess.TimeoutExpired:
                child.kill()
            pip.feed(*tail)  # the last lines
    return child.returncode == 0


def create(venv: Path, python: str, log: Path, progress: Progress) -> None:
    """Creates an empty environment, replacing an existing one."""
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    progress.start(f"creating {venv.name}")
    if not execute([python, "venv", str(venv)], log, progress, Pip(venv, 0)):
        raise Refused("The virtual environment could not be created (see the reason above).")
    (venv / ".whole").write_text(identity(venv), encoding="utf-8")


def install(venv: Path, lock: Path, log: Path, progress: Progress) -> None:
    """Installs one lock; torch from the configured index, or else from PyTorch's own."""
    progress.start(lock.stem)
    ways = [["--require-hashes", "-r", str(lock)]]
    pins = re.findall(r"^[\w.-]+==\S+", read(lock), re.MULTILINE)
    if lock.stem == "torch-cpu":
        ways = [["-r", str(lock)], ["--index-url", TORCH_INDEX, *pins]]
    # Compiled afterwards on all cores: pip uses one.
    pip = [str(venv / "bin" / "python"), "pip", "install", "--no-deps", "--no-compile", "--progress-bar=off"]
    if not any(execute(pip + way, log, progress, Pip(venv, len(pins))) for way in ways):
        raise Refused(f"{lock.name} could not be installed; pip's output is in {venv.name}/{log.name}.")
    (venv / ".whole").write_text(identity(venv), encoding="utf-8")


def bring_up_to_date(venv: Path, locks: list[Path]) -> None:
    """Installs the locks into the environment, showing progress."""
    new = not is_whole(venv)
    python = pick_python() if new else ""
    log = venv / "install.log"
    todo = missing(venv, locks)
    progress = Progress(len(todo) + 1 + new)
    try:
        if new:
            create(venv, python, log, progress)
        for lock in todo:
            install(venv, lock, log, progress)
        progress.start("compiling")
        # Ignores files that cannot be compiled, for example templates.
        compiler = [str(venv / "bin" / "python"), "compileall", "-q", "-j", "0", "-x", RARELY_IMPORTED]
        execute([*compiler, str(venv / "lib")], log, progress, Pip(venv, 0))
    except Refused:
        progress.end("\n".join(read(log).splitlines()[-15:]))
        raise
    for lock in todo:
        (venv / f".stamp-{lock.stem}").write_text(stamp(venv, lock), encoding="utf-8")
    names = ", ".join(lock.stem for lock in todo)
    progress.end(f"Installed {names} in {time.monotonic() - progress.started:.0f} s.")


def terminated(*_: object) -> None:
    """On SIGTERM stop pip as well."""
    raise SystemExit(143)


def main(arguments: list[str]) -> int:
    """Installs the set named on the command line, if it is not installed. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes an environment hold a set of locked packages.")
    parser.add_argument("--with", dest="set", choices=sorted(SETS), required=True)
    name = parser.parse_args(arguments).set
    locks = [ROOT / "requirements" / f"{lock}.txt" for lock in SETS[name]]
    venv = environment_folder(name)
    if not missing(venv, locks):
        return 0
    signal.signal(signal.SIGTERM, terminated)
    # The lock is on the folder itself: it leaves no lock file, and does not depend on .venv.
    folder = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Another installation is running here; waiting for it.", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        if missing(venv, locks):
            require_system(locks)
            bring_up_to_date(venv, locks)
    except Refused as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the next run continues or starts again.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
