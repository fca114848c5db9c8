"""What runs of the tests have compiled, kept under `.venv` for those that follow on this machine.

Each process has a folder of its own, in which no other writes: it begins with what is kept, and what
it adds is kept when it ends. JAX looks programs up by their text, the flags and its version, so
that nothing is found that would be compiled otherwise. On a server (`CI`) all is compiled anew.
"""

import hashlib
import os
import pathlib
import platform
import shutil
import tempfile

MOST = 1 << 29  # bytes that are kept, until all are forgotten
VENV = pathlib.Path(__file__).parents[1] / ".venv"


def kept() -> pathlib.Path | None:
    """The folder that outlives a run, of processors like this one."""
    if os.environ.get("CI") or not VENV.is_dir():
        return None
    about = pathlib.Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    kind = sorted({line for line in lines if line.startswith(("flags", "Features"))})
    machine = hashlib.sha256(f"{platform.machine()} {kind}".encode()).hexdigest()[:12]
    return VENV / ".programs" / machine


def borrowed() -> tempfile.TemporaryDirectory[str]:
    """A folder for this process, with what is kept."""
    own, shared = tempfile.TemporaryDirectory(prefix="gradkit-programs-"), kept()
    if shared is not None and shared.is_dir():
        for program in shared.iterdir():
            shutil.copyfile(program, pathlib.Path(own.name, program.name))
    return own


def keep(own: str) -> None:
    """What this process has added is kept; each file is whole as soon as it has its name."""
    shared = kept()
    if shared is None:
        return
    if shared.is_dir() and sum(x.stat().st_size for x in shared.iterdir()) > MOST:
        shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True, exist_ok=True)
    known = set(os.listdir(shared))
    for program in pathlib.Path(own).iterdir():
        if program.name not in known and program.suffix != ".tmp":
            part = shared.parent / f"{os.getpid()}.part"
            shutil.copyfile(program, part)
            os.replace(part, shared / program.name)
