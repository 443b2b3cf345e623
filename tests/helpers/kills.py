"""Jobs that are really killed: processes of a session of their own, ended by SIGKILL at a moment that a test sees."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def wait_for(seen: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> None:
    """Return as soon as ``seen()``; fails if the process ends before, or takes longer."""
    until = time.monotonic() + seconds
    while not seen():
        assert process.poll() is None, f"it ended by itself, with {process.returncode}"
        assert time.monotonic() < until, f"not seen after {seconds} s"
        time.sleep(0.01)


def kill_when(script: str | Path, arguments: str, seen: Callable[[], bool]) -> None:
    """Start a Python script and kill it, with all its processes, as soon as ``seen()``; fails if it ends before."""
    process = subprocess.Popen([sys.executable, str(script), arguments], start_new_session=True)
    wait_for(seen, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def kill_at_call(number: int, owner: object, name: str, job: Callable[[], object]) -> None:
    """Run ``job()`` in a fork of this process, which imports nothing again, killed at that call of ``owner.name``."""
    child = os.fork()
    if not child:
        try:
            calls, original = [], getattr(owner, name)

            def counted(*arguments, **keywords):
                calls.append(0)
                if len(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **keywords)

            setattr(owner, name, counted)
            job()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
