"""Makes `.venv` and fills it from the locks in `requirements/`; run by the Makefile with the system's Python.

Owns: the virtual environments (`.venv`, and one for each set of other people's clients) and their stamps (what is
installed).
Refuses: a package that no lock names, an interpreter that the locks were not made for, and an environment
that was moved or that an interrupted installation left behind (it is made anew).
Stdlib only, in syntax that Python 3.8 can read: an old interpreter shall get a sentence, not a traceback.
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
# Each set's locks in the order of installation. `check` needs no engine: the type check skips vLLM and torch.
SETS = {
    "run": ("torch-cpu", "worker-cpu", "local", "model"),
    "test": ("torch-cpu", "worker-cpu", "local", "model", "dev"),
    "check": ("api", "local", "dev"),
    # vLLM's own server is measured beside ours: the lock adds what it needs, and changes nothing that is there.
    "bench": ("torch-cpu", "worker-cpu", "local", "model", "vllm-server"),
    # Client libraries of others. Their pins would fight with ours and with each other's: one environment for each set.
    "clients-sdks": ("clients-sdks",),
    "clients-frameworks": ("clients-frameworks",),
    "clients-infinity": ("clients-infinity",),
    # What writes requests from the OpenAPI document.
    "fuzz": ("fuzz",),
}
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# A quarter of all code, and next to nothing of it is ever imported; what is, Python compiles then.
RARELY_IMPORTED = r"/tests?/|/transformers/models/"
PYTHONS = ("3.11", "3.12", "3.13")
PROBE = "import sys; print('%d.%d' % sys.version_info[:2]); import ensurepip, venv; print('venv')"
# Settings of the user's shell that would send the packages elsewhere or keep pip from installing them.
UNWANTED = re.compile(
    r"PYTHON.*|VIRTUAL_ENV|__PYVENV.*|PIP_(TARGET|PREFIX|ROOT|USER|PYTHON|CONSTRAINT|REQUIREMENT|DRY_RUN"
    r"|REQUIRE_HASHES|REQUIRE_VIRTUALENV|QUIET|LOG)"
)


class Refused(Exception):
    """What stands in the way, in one sentence for the user."""


def home(name: str) -> Path:
    """The environment that a set is installed in."""
    return ROOT / (f".venv-{name}" if name.startswith(("clients-", "fuzz")) else ".venv")


def read(path: Path) -> str:
    """The file's text, or nothing where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def identity(venv: Path) -> str:
    """Where the environment lies and which interpreter carries it: a change of either breaks it."""
    return f"{venv}\n{os.path.realpath(venv / 'bin' / 'python')}\n"


def is_whole(venv: Path) -> bool:
    """Whether the environment was made here, by a Python still there, and no write to it was cut off."""
    return (venv / "bin" / "python").exists() and read(venv / ".whole") == identity(venv)


def stamp(venv: Path, lock: Path) -> str:
    """What a lock's stamp says once it is installed: the lock's contents and the Python version."""
    version = re.search(r"^version.*", read(venv / "pyvenv.cfg"), re.MULTILINE)
    return f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {version.group() if version else ''}\n"


def missing(venv: Path, locks: list[Path]) -> list[Path]:
    """Those of the locks that are not installed as they stand now."""
    whole = is_whole(venv)
    return [lock for lock in locks if not whole or read(venv / f".stamp-{lock.stem}") != stamp(venv, lock)]


def environment() -> dict[str, str]:
    """The user's environment without what would bend the installation."""
    clean = {name: value for name, value in os.environ.items() if not UNWANTED.fullmatch(name)}
    return {**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def pick_python() -> str:
    """An interpreter that the locks were made for: this one, or one on the PATH."""
    found = [sys.executable, *filter(None, (shutil.which(f"python{version}") for version in PYTHONS))]
    incomplete = ""
    for path in found:
        probe = subprocess.run(
            [path, "-I", "-c", PROBE], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        said = probe.stdout.decode().split()
        if said and said[0] in PYTHONS:
            if "venv" in said:
                return path
            incomplete = incomplete or said[0]
    if incomplete:
        raise Refused(f"Python {incomplete} has no venv module; on Debian, Ubuntu: apt install python3-venv")
    this = sys.version.split()[0]
    raise Refused(f"This needs Python {', '.join(PYTHONS)}; python3 is {this} and the PATH has no other.")


def require_system(locks: list[Path]) -> None:
    """What no wheel brings is asked for before anything is fetched."""
    if any(lock.stem == "worker-cpu" for lock in locks):
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            raise Refused(
                "vLLM's CPU build needs the system library libnuma; install it and run this again"
                " (Debian, Ubuntu: apt-get install libnuma1; Fedora: dnf install numactl-libs)."
            ) from None


def execute(command: list[str], log: Path, progress: Progress, pip: Pip) -> bool:
    """Runs a Python's module with its output in the log and its state on the screen; tells its success."""
    with log.open("ab") as output, log.open("rb") as spoken:
        spoken.seek(0, os.SEEK_END)
        # close_fds=False hands our lock down: while pip lives, nobody else touches the environment.
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
                pip.hear(*spoken)
                progress.tell(str(pip))
        except SystemExit:  # a kill reaches us alone, Ctrl-C all of us
            child.send_signal(signal.SIGINT)
            raise
        finally:
            try:
                child.wait(5)  # pip clears its temporary files away
            except subprocess.TimeoutExpired:
                child.kill()
            pip.hear(*spoken)  # what it began in its last moment
    return child.returncode == 0


def create(venv: Path, python: str, log: Path, progress: Progress) -> None:
    """Makes an empty environment in place of whatever is there."""
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    progress.start(f"creating {venv.name}")
    if not execute([python, "venv", str(venv)], log, progress, Pip(venv, 0)):
        raise Refused("The virtual environment could not be made (the reason stands above).")
    (venv / ".whole").write_text(identity(venv), encoding="utf-8")


def install(venv: Path, lock: Path, log: Path, progress: Progress) -> None:
    """Installs one lock; torch alone is looked for in two places."""
    progress.start(lock.stem)
    ways = [["--require-hashes", "-r", str(lock)]]
    pins = re.findall(r"^[\w.-]+==\S+", read(lock), re.MULTILINE)
    if lock.stem == "torch-cpu":
        ways = [["-r", str(lock)], ["--index-url", TORCH_INDEX, *pins]]
    # Compiled afterwards, all at once and on all cores: pip would do it on one.
    pip = [str(venv / "bin" / "python"), "pip", "install", "--no-deps", "--no-compile", "--progress-bar=off"]
    if not any(execute(pip + way, log, progress, Pip(venv, len(pins))) for way in ways):
        raise Refused(f"{lock.name} could not be installed; all that pip said is in {venv.name}/{log.name}.")
    (venv / ".whole").write_text(identity(venv), encoding="utf-8")


def bring_up_to_date(venv: Path, locks: list[Path]) -> None:
    """Makes the environment hold the locks, with progress on the screen."""
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
        # A file that cannot be compiled (a template, say) is nobody's failure.
        compiler = [str(venv / "bin" / "python"), "compileall", "-q", "-j", "0", "-x", RARELY_IMPORTED]
        execute([*compiler, str(venv / "lib")], log, progress, Pip(venv, 0))
    except Refused:
        progress.end("\n".join(read(log).splitlines()[-15:]))
        raise
    for lock in todo:
        (venv / f".stamp-{lock.stem}").write_text(stamp(venv, lock), encoding="utf-8")
    names = ", ".join(lock.stem for lock in todo)
    progress.end(f"Installed {names} in {time.monotonic() - progress.began:.0f} s.")


def terminated(*_: object) -> None:
    """A polite kill ends in order: pip is stopped too."""
    raise SystemExit(143)


def main(arguments: list[str]) -> int:
    """Installs the set named on the command line, if it is not installed; the exit status."""
    parser = argparse.ArgumentParser(description="Makes an environment hold a set of locked packages.")
    parser.add_argument("--with", dest="set", choices=sorted(SETS), required=True)
    name = parser.parse_args(arguments).set
    locks = [ROOT / "requirements" / f"{lock}.txt" for lock in SETS[name]]
    venv = home(name)
    if not missing(venv, locks):
        return 0
    signal.signal(signal.SIGTERM, terminated)
    # The lock is on the folder itself, so that no file is left behind and .venv can be thrown away under it.
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
        print("\nInterrupted; the next run goes on or starts anew.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
