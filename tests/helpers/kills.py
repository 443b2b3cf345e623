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
        time.sleep(0.002)


def kill_when(script: str | Path, arguments: str, seen: Callable[[], bool]) -> None:
    """Start a Python script and kill it, with all its processes, as soon as ``seen()``; fails if it ends before."""
    process = subprocess.Popen([sys.executable, str(script), arguments], start_new_session=True)
    wait_for(seen, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
