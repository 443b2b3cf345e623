"""Downloads images from a hostile web: img2dataset, within the limits of :mod:`augbench.retrieval.guard`.

img2dataset spawns workers that import the main module again, and downloads through urllib's installed
opener. So this module is run as the main one (``python -m augbench.retrieval.download``), and installs a guarded opener
wherever it is imported as such.
"""

import hashlib
import importlib
import itertools
import json
import math
import os
import queue
import re
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from augbench import images
from augbench.core import processes
from augbench.core.files import whole
from augbench.retrieval.guard import SCHEMES, Limits, environment_proxies, guarded_opener, place_of, spelt
from augbench.study.sections.retrieval import Retrieval

GUARD = "AUGBENCH_FETCH"  # environment variable that hands the limits to img2dataset's processes
ANY = ("0.0.0.0/0", "::/0")
SHARD_SIZE = 1000  # URLs after which img2dataset writes down what became of them
STARTING, RESOLVING = 300, 60  # seconds that a start of img2dataset, and a look-up of a name, may take at most
LIST_SIZE = 10_000  # URLs that one img2dataset run takes: what a kill may cost
OUTAGE, OUTAGE_LEAST = 0.95, 50  # share of a list of at least so many URLs whose failure is taken for an outage
TRANSIENT = (408, 425, 429)  # answers below 500 that may be others later: timeout, too early, too many requests
CONTINUE = "finished downloads are cached; run again to continue"
# img2dataset hands on what went wrong as text alone. What it says, and the fate that it is; the first match counts.
REASONS = {
    "X-Robots-Tag": "opted out",
    "timed out": "timeout",
    "time limit": "timeout",
    "too many bytes": "too large",
    "refused:": "refused",
    "is not allowed": "refused",  # urllib's words for a redirect to another scheme
}


COLUMNS = ["url", "fate", "reason", "path", "offset", "length", "sha256"]


def fetch(urls: Sequence[str], work: str | Path, settings: Retrieval, **options) -> pd.DataFrame:
    """:func:`fetch_in_turn` as one table."""
    tables = list(fetch_in_turn(urls, work, settings, **options))
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def fetch_in_turn(
    urls: Sequence[str],
    work: str | Path,
    settings: Retrieval,
    *,
    owner: str = "",
    proxy: str | None = None,
) -> Iterator[pd.DataFrame]:
    """Download ``urls`` with img2dataset into folders below ``work``.

    Downloads and final refusals are cached there; what failed otherwise, by a timeout or without a connection, is tried
    again by each call.

    Yields tables of consecutive URLs, as soon as these are known, which together have one row per URL, in their order:
    url, fate (``fetched``, ``dead``, ``timeout``, ``opted out``,
    ``refused`` or ``too large``), reason (as the server or the guard said), path, offset, length (of the bytes,
    as they came) and sha256. Files are named by number: no part of a URL is ever a part of a path.

    Raises ConnectionError when nearly all of a list's URLs failed in such a way: not these servers are down, but this
    machine's network, or a proxy.

    Parameters
    ----------
    settings : limits, attempts, and whether the environment's proxies are used
    owner : of several processes that share ``work``, each has a name of its own
    proxy : address of an HTTP proxy, which is used instead of those; a proxy is trusted, and of the names behind it no
        address is known
    """
    asked = {url: spelt(url) for url in urls}
    allowed = [address for address in asked.values() if _is_allowed(address)]
    proxy = proxy or settings.proxy
    proxies = environment_proxies() if proxy == "environment" else dict.fromkeys(SCHEMES, proxy or "")
    networks = tuple(settings.allowed_networks)
    trusted = tuple({place_of(proxies[name]) for name in SCHEMES if proxies.get(name)})
    # Another limit can lead to another fate: what was downloaded under other ones is not asked.
    known_by = {"seconds": settings.timeout, "bytes": settings.max_bytes, "networks": ANY if proxy else networks}
    known_by["opt_outs"] = sorted(settings.opt_outs)
    facts = json.dumps([known_by, settings.retries])
    place = Path(work) / hashlib.sha256(facts.encode()).hexdigest()[:8]
    limits = Limits(settings.timeout, settings.max_bytes, networks, trusted, settings.downloads_per_host)
    parts = [_final(file, allowed) for file in sorted(place.glob("*/fetched.parquet"))]
    known = {url for table in parts for url in table["url"]}
    fresh = [url for url in dict.fromkeys(allowed) if url not in known]
    pairs = [(url, asked[url]) for url in urls]
    first = {address: place for place, (_, address) in reversed(list(enumerate(pairs)))}
    begin = 0
    for start in range(0, len(fresh), LIST_SIZE):
        chunk = fresh[start : start + LIST_SIZE]
        if (end := first[chunk[0]]) > begin:
            yield _answers(pairs[begin:end], parts)
            begin = end
        # img2dataset takes a shard for done if its JSON exists, even for other URLs: one folder per list and attempt.
        name = hashlib.sha256("\n".join([owner, *chunk]).encode()).hexdigest()[:16]
        folders = (place / f"{name}-{attempt}" for attempt in itertools.count())
        folder = next(folder for folder in folders if not (folder / "fetched.parquet").exists())
        parts.append(_fetch_list(chunk, folder, limits, settings, proxies))
        _check_outage(parts[-1])
    yield _answers(pairs[begin:], parts)


def _answers(pairs: Sequence[tuple[str, str]], parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A row for each pair of a URL and how it is spelt, which is how the tables of what is known have it."""
    known = pd.concat(parts) if parts else pd.DataFrame(columns=COLUMNS)
    known = known.drop_duplicates("url").set_index("url")
    table = known.reindex([address for _, address in pairs]).reset_index(names="url")
    other = ~table["url"].map(_is_allowed).astype(bool)
    table["url"] = [url for url, _ in pairs]
    table.loc[other, "fate"], table.loc[other, "reason"] = "refused", "neither http nor https"
    lost = table["fate"].isna()
    table.loc[lost, "fate"], table.loc[lost, "reason"] = "dead", "no answer was recorded"
    return table[COLUMNS]


def _is_allowed(address: str) -> bool:
    return address.split(":", 1)[0].lower() in SCHEMES


def _final(file: Path, urls: Sequence[str]) -> pd.DataFrame:
    """The rows of an earlier list of some URLs, as far as another attempt would not change them."""
    table = pd.read_parquet(file)
    table = table[table["url"].isin(urls)]
    return table[is_final(table)]


def is_final(rows: pd.DataFrame) -> pd.Series:
    """Which fates (rows of :func:`fetch`) another attempt would not change: all but timeouts, errors of the server, and
    connections that failed."""

    def final(fate: str, reason: str) -> bool:
        if fate != "dead":
            return fate != "timeout"
        answer = re.search(r"HTTP Error (\d+)", reason)
        return bool(answer) and int(answer[1]) < 500 and int(answer[1]) not in TRANSIENT

    pairs = zip(rows["fate"], rows["reason"], strict=True)
    return pd.Series([final(fate, reason) for fate, reason in pairs], index=rows.index, dtype=bool)


def _check_outage(rows: pd.DataFrame) -> None:
    """Raise ConnectionError when nearly all downloads of a list failed, but not for good."""
    failed = rows[~is_final(rows)]
    if len(rows) >= OUTAGE_LEAST and len(failed) >= OUTAGE * len(rows):
        raise ConnectionError(
            f"{len(failed)} of {len(rows)} downloads failed without an answer (the last: {failed['reason'].iloc[-1]}); "
            f"is this machine's network up? {CONTINUE[0].upper()}{CONTINUE[1:]}"
        )


def _fetch_list(urls: list[str], folder: Path, limits: Limits, settings: Retrieval, proxies) -> pd.DataFrame:
    """The rows of a list's URLs, in a new folder or one in which a killed download had begun."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "urls.parquet") as temporary:
        # In no order, so that hosts take turns: neighbours come sorted by address.
        mixed = sorted(urls, key=lambda url: hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest())
        pd.DataFrame({"url": mixed}).to_parquet(temporary, index=False)
    _run(folder, limits, settings, proxies)
    rows = _read(folder)
    with whole(folder / "fetched.parquet") as temporary:
        rows.to_parquet(temporary, index=False)
    return rows


def _run(folder: Path, limits: Limits, settings: Retrieval, proxies: dict[str, str]) -> None:
    options = {
        "url_list": str(folder / "urls.parquet"),
        "input_format": "parquet",
        "output_folder": str(folder / "shards"),
        "output_format": "webdataset",
        "disable_all_reencoding": True,  # bytes as they came; they are decoded under our own limits
        "extract_exif": False,
        "processes_count": 1,
        "thread_count": settings.download_threads,
        "timeout": limits.seconds,
        "retries": settings.retries,
        "disallowed_header_directives": settings.opt_outs,
        "number_sample_per_shard": SHARD_SIZE,
    }
    environment = os.environ | {
        "NO_ALBUMENTATIONS_UPDATE": "1",  # img2dataset's library would ask the network
        GUARD: json.dumps(asdict(limits)),
        # Without a word from the configuration none, whatever the environment says.
        "http_proxy": proxies.get("http", ""),
        "https_proxy": proxies.get("https", ""),
        "no_proxy": proxies.get("no", ""),
    }

    def written() -> list:
        return [(file.name, file.stat().st_size) for file in sorted((folder / "shards").glob("*"))]

    # A download is noted with the others of its shard.
    at_once = min(settings.download_threads, settings.downloads_per_host)  # all of a shard may be of one host
    attempts = math.ceil(SHARD_SIZE / at_once) * (settings.retries + 1)
    limit = STARTING + attempts * (limits.seconds + RESOLVING)
    command = [sys.executable, "-m", __name__, json.dumps(options)]
    try:
        code = processes.run(command, environment=environment, progress=written, limit=limit)
    except TimeoutError as error:
        raise RuntimeError(f"the download into {folder} has stalled: {error}; {CONTINUE}") from None
    if code:
        raise RuntimeError(f"the download into {folder} was aborted (exit code {code}, see above); {CONTINUE}")


def _read(folder: Path) -> pd.DataFrame:
    """What became of each URL, from img2dataset's shards and their tables."""
    rows = []
    for tar in sorted((folder / "shards").glob("*.tar")):
        where = dict(images.member_places(tar))
        for row in pd.read_parquet(tar.with_suffix(".parquet")).itertuples():
            place = where.get(f"{row.key}.jpg")
            reason = str(row.error_message or "")
            if row.status == "success" and place:
                fate, reason = "fetched", ""
            else:
                fate = next((fate for words, fate in REASONS.items() if words in reason), "dead")
            offset, length = place or (None, None)
            rows.append((row.url, fate, reason[:200], str(tar), offset, length, row.sha256))
    table = pd.DataFrame(rows, columns=["url", "fate", "reason", "path", "offset", "length", "sha256"])
    return table.astype({"offset": "Int64", "length": "Int64"}).drop_duplicates("url")


# Both in the main process and in those that img2dataset spawns, for which this is "__mp_main__".
if __name__ in ("__main__", "__mp_main__") and GUARD in os.environ:
    # What img2dataset would import for nothing: most of what these processes take to start. Its writer's library does
    # without torch; the others are for changed images and for a service that is not used.
    sys.modules |= {"torch": None, "albumentations": ModuleType("albumentations"), "wandb": ModuleType("wandb")}
    _limits = json.loads(os.environ[GUARD])
    _limits |= {name: tuple(_limits[name]) for name in ("networks", "proxies")}
    urllib.request.install_opener(guarded_opener(Limits(**_limits)))


def _distribute(count: int, downloader: Callable, shards: Iterable, _, retries: int) -> None:
    """Takes the place of img2dataset's distributor, which waits without end for a process that was killed.

    Raises BrokenProcessPool then.
    """
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        for _ in range(retries + 1):
            shards = [shard for done, shard in pool.map(downloader, shards) if not done]


def _download(options: dict) -> None:
    main: Any = importlib.import_module("img2dataset.main")  # its package has a function of that name
    main.multiprocessing_distributor = _distribute

    class Logger(main.LoggerProcess):
        """Prints in a thread what img2dataset prints in a process, which would take as long to start as a worker."""

        def start(self) -> None:
            self.q, self.thread = queue.Queue(), threading.Thread(target=self.run, daemon=True)
            self.thread.start()

        def join(self, timeout: float | None = None) -> None:
            self.q.put("stop")
            self.thread.join(timeout)

        def terminate(self) -> None:
            """Its thread ends with the process."""

    main.LoggerProcess = Logger
    try:
        with processes.ended_on_error():
            main.download(**options)
    except BrokenProcessPool:
        raise SystemExit("a process of the download was killed, perhaps for lack of memory") from None


if __name__ == "__main__":
    _download(json.loads(sys.argv[1]))
