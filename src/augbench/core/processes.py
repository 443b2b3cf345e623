"""What a job waits for: it notices its death, waits no longer than a limit, and no process outlives it.

Libraries start processes of their own and wait for some that will never answer: one that was killed, or one that only
ends when it is told to. Whoever calls such a library does so within :func:`ended_on_error`, or in a program of its own
by :func:`run`.
"""

import contextlib
import ctypes
import multiprocessing
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

# What torchrun, accelerate, MPI and a job script tell the processes that they start, and a shell may have kept.
LAUNCHERS = re.compile(
    r"((LOCAL|GROUP|ROLE|NODE)_)?(RANK|WORLD_SIZE)|ROLE_.*|MASTER_(ADDR|PORT)|NODE_RANK|FORK_LAUNCHED|"
    r"(PMI|PMIX|OMPI_COMM_WORLD|MV2_COMM_WORLD|MPI|TORCHELASTIC|ACCELERATE|FSDP|MEGATRON_LM)_.*"
)
OURS = "AUGBENCH_PROCESSES"  # set for the processes of one training, which do want what their launcher tells them


def without_launchers(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what launchers of other programs left there: nobody would answer."""
    return {name: value for name, value in environment.items() if not LAUNCHERS.fullmatch(name)}


def forget_launchers() -> None:
    """Forget what other launchers left in this process's environment, unless it is one of a training's several."""
    if OURS not in os.environ:
        for name in os.environ.keys() - without_launchers(os.environ).keys():
            del os.environ[name]


def end_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent dies, however it does; for ``preexec_fn``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def ended_on_error() -> Iterator[None]:
    """End the processes that :mod:`multiprocessing` started within the block when it raises.

    Python waits for them before it ends, and the one that would have told them to end has failed.
    """
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
            process.join()
        raise


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Have :mod:`multiprocessing` fork within the block, as it does by itself until Python 3.14.

    For a library that hands its processes functions that cannot be pickled.
    """
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(usual, force=True)


def answer(ask: Callable[[], object], seconds: float):
    """What ``ask`` returns or raises, within so many seconds; raises TimeoutError after them.

    For a library that waits for a network without a limit: its thread is left to itself, and ends with the process.
    """
    outcome = queue.SimpleQueue()

    def run_it() -> None:
        try:
            outcome.put((ask(), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=run_it, daemon=True).start()
    try:
        value, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return value


def ahead(items: Iterable) -> Iterator:
    """The items of an iterator, of which a thread makes the next while the last is being used."""
    made = queue.Queue(1)
    end = object()

    def make() -> None:
        try:
            for item in items:
                made.put((item, None))
            made.put((end, None))
        except BaseException as error:
            made.put((end, error))

    # Who breaks off ends the process, and what the thread waits for ends with it.
    threading.Thread(target=make, daemon=True).start()
    while True:
        item, error = made.get()
        if error is not None:
            raise error
        if item is end:
            return
        yield item


def run(command: Sequence[str], *, environment: Mapping[str, str], progress: Callable[[], object], limit: float) -> int:
    """Run a program and return its exit code; negative: the signal that ended it.

    ``progress`` is any sign of its work, e.g. the sizes of its files. Raises TimeoutError when that has not changed for
    ``limit`` seconds; the program and all that it started are ended then, as they are when this is interrupted.
    """
    import psutil

    process = subprocess.Popen(command, env=environment, preexec_fn=end_with_parent)
    seen, since = progress(), time.monotonic()
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=min(5.0, limit))
            if (now := progress()) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > limit:
                raise TimeoutError(f"nothing happened for {limit:.0f} s")
    finally:
        if process.poll() is None:
            started = psutil.Process(process.pid).children(recursive=True)
            for each in [*started, process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()
            psutil.wait_procs(started, timeout=10)  # a signal is only delivered some time later
