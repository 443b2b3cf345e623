"""What every job's script needs: a log that also holds uncaught errors, and progress with remaining time."""

import os
import sys
import time


def log_to(path: str) -> None:
    """Send what the job and its child processes print, and an uncaught error, to its log file."""
    log = open(path, "w", buffering=1, encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log


def progress(every: float = 10.0):
    """A callback (done, total, note) that prints share, rate and remaining time at most every few seconds."""
    start = last = None

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal start, last
        now = time.monotonic()
        if start is None:  # what came before the first call, imports above all, says nothing about the rate
            start = last = now
        if done < total and now - last < every:
            return
        last = now
        rate = done / max(now - start, 1e-9)
        left = (total - done) / rate if rate else float("inf")
        print(f"{done}/{total} ({done / total:.0%}) {note}, {rate:.3g}/s, {left:.0f} s left", flush=True)

    return report
