"""Progress of long work: share, rate and remaining time, printed now and then."""

import time


def progress(every: float = 10.0):
    """A callback (done, total, note) that prints share, rate and remaining time at most every few seconds."""
    start: float | None = None
    last = 0.0

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
