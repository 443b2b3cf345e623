"""Opens each image of a target once, on several threads, and remembers those that can be read.

A file that was read and has its size and time of modification still is not opened again: a job that was killed goes on,
and an edited target costs what changed.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from augbench import images
from augbench.core import code_digest, files
from augbench.core.files import BadInput
from augbench.images import folders, pixels, places
from augbench.images.places import Place, Row

SIZE = 16  # bytes of what stands for a file
AT_A_TIME = 1024  # files that are opened before those that can be read are noted


class Verifier:
    """Tells which files are images that can be read.

    Parameters
    ----------
    threads : files that are opened at a time
    notes : file for what was found out, or None; others : such files of other studies, whose notes count as well
    """

    def __init__(self, threads: int = 1, notes: Path | None = None, others: Iterable[Path] = ()):
        import PIL

        self.threads, self.notes = threads, notes
        self._decoder = f"{PIL.__version__} {code_digest.digest_of_module(pixels.__name__)}".encode()
        self._known = {entry for file in {*others, *([notes] if notes else [])} for entry in _entries(file)}

    def look_through(self, rows: Iterable[Place]) -> None:
        """Note which rows of Parquet files can be read, in the order in which they lie: :meth:`readable`, which is
        asked class by class, would read each file for each of them."""
        ordered = sorted(rows)
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(ordered), AT_A_TIME):
                entries = pool.map(self._look_at, ordered[start : start + AT_A_TIME])
                self._note([entry for entry, problem in entries if not problem and entry not in self._known])

    def readable(self, paths: Sequence[Place], policy: str, unreadable: list[str]) -> list[Place]:
        """The images that can be read. Of the others, messages are added to ``unreadable``, or, with the policy
        ``stop``, the first raises BadInput."""
        good: list[Place] = []
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(paths), AT_A_TIME):
                fresh, chunk = [], paths[start : start + AT_A_TIME]
                for path, (entry, problem) in zip(chunk, pool.map(self._look_at, chunk), strict=True):
                    if problem and policy == "stop":
                        self._note(fresh)
                        raise BadInput(f"{problem}; repair or remove it, or set `unreadable: skip`")
                    if problem:
                        unreadable.append(problem)
                        continue
                    good.append(path)
                    if entry not in self._known:
                        fresh.append(entry)
                self._note(fresh)
        return good

    def _look_at(self, place: Place) -> tuple[bytes, str]:
        """What stands for an image, and why it cannot be read; empty where it can."""
        entry = b""
        try:
            if not folders.is_text(places.file_of(place)):
                raise BadInput(f"the name of {files.printable(place)} is not UTF-8")
            entry = self._entry(place)
            if entry not in self._known:
                images.decode(places.load_bytes(place), places.name_of(place))
        except ValueError as error:
            return entry, str(error)
        return entry, ""

    def _entry(self, place: Place) -> bytes:
        path = places.file_of(place)
        try:
            status = os.stat(path)  # noqa: PTH116 (of a million files)
        except OSError:
            return b""  # reading it says what is wrong
        row = f"\0{place.number}" if isinstance(place, Row) else ""
        name = f"{os.path.abspath(path)}{row}\0"  # noqa: PTH100
        facts = f"{name}{status.st_size} {status.st_mtime_ns} ".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(facts + self._decoder, digest_size=SIZE).digest()

    def _note(self, entries: Sequence[bytes]) -> None:
        if not entries:
            return
        self._known.update(entries)
        if self.notes:
            self.notes.parent.mkdir(parents=True, exist_ok=True)
            size = self.notes.stat().st_size if self.notes.exists() else 0
            with open(self.notes, "r+b" if size else "wb") as file:
                file.seek(size - size % SIZE)  # over what a killed job left half written
                file.write(b"".join(entries))


def _entries(file: Path) -> Iterable[bytes]:
    try:
        data = file.read_bytes()
    except OSError:
        return []
    return [data[start : start + SIZE] for start in range(0, len(data) - SIZE + 1, SIZE)]
