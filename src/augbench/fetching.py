"""Downloads images from a hostile web: img2dataset, with guards that it does not have.

img2dataset spawns workers that import the main module again, and downloads through urllib's installed
opener. So this module is run as the main one (``python -m augbench.fetching``), and installs a guarded opener
wherever it is imported as such: http and https only, also after redirects; no address in private ranges; no
answer larger or slower than the limits.
"""

import contextlib
import hashlib
import http.client
import ipaddress
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.files import whole

GUARD = "AUGBENCH_FETCH"  # environment variable that hands the limits to img2dataset's processes
SETTINGS = ("timeout", "retries", "max_bytes", "download_threads", "allowed_networks")  # of the configuration
SCHEMES = ("http", "https")
ANY = ("0.0.0.0/0", "::/0")
LIST_SIZE = 10_000  # URLs that one img2dataset run takes: what a kill may cost
OUTAGE, OUTAGE_LEAST = 0.95, 50  # share of a list of at least so many URLs whose failure is taken for an outage
TRANSIENT = (408, 425, 429)  # answers below 500 that may be others later: timeout, too early, too many requests
REASONS = {  # what an error message of a download says, and the fate that it is; the first match counts
    "X-Robots-Tag": "opted out",
    "timed out": "timeout",
    "time limit": "timeout",
    "too many bytes": "too large",
    "refused:": "refused",
    "is not allowed": "refused",  # urllib's words for a redirect to another scheme
}


@dataclass(frozen=True)
class Limits:
    """What a single download may cost.

    seconds : from connecting to the last byte; bytes : of the answer; networks : which may be asked though
    their addresses are not public, e.g. ``10.1.0.0/16``
    """

    seconds: float
    bytes: int
    networks: tuple[str, ...] = ()


# --- the guarded opener, inside img2dataset's processes -------------------------------------------------


def _check(address: str, networks: Sequence[str]) -> None:
    """Raise OSError unless a numeric address is public or in one of the networks."""
    found = ipaddress.ip_address(address.split("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if any(found in ipaddress.ip_network(network) for network in networks):
        return
    if not found.is_global or found.is_multicast:
        raise OSError(f"refused: {address} is not a public address")


def _connect(limits: Limits) -> Callable:
    """``socket.create_connection`` that looks at the very address it connects to, so that no name can change."""

    def connect(place, timeout=None, source_address=None):
        problem = OSError(f"no address for {place[0]}")
        for family, kind, protocol, _, address in socket.getaddrinfo(*place, 0, socket.SOCK_STREAM):
            _check(address[0], limits.networks)
            made = socket.socket(family, kind, protocol)
            made.settimeout(min(timeout or limits.seconds, limits.seconds))
            try:
                made.connect(address)
                return made
            except OSError as error:
                made.close()
                problem = error
        raise problem

    return connect


class _Clock:
    """Ends a connection when its time is up: a timeout of the socket alone begins anew with each byte."""

    def __init__(self, connected: socket.socket, seconds: float):
        self.late = threading.Event()
        self.twin = connected.dup()  # TLS takes over the socket itself
        self.timer = threading.Timer(seconds, self._end)
        self.timer.daemon = True
        self.timer.start()

    def _end(self) -> None:
        self.late.set()
        with contextlib.suppress(OSError):  # it has ended by itself
            self.twin.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.timer.cancel()
        self.twin.close()


def guarded_opener(limits: Limits) -> urllib.request.OpenerDirector:
    """An opener for http and https within ``limits``; it has no other scheme, and redirects lead to no other."""
    too_late = f"time limit of {limits.seconds:g} s"

    class Response(http.client.HTTPResponse):
        def read(self, amount=None):
            data = super().read(limits.bytes + 1 if amount is None else amount)
            if amount is None and len(data) > limits.bytes:
                raise OSError(f"too many bytes: more than {limits.bytes}")
            if self.clock.late.is_set():
                raise TimeoutError(too_late)
            if amount is None and self.length:  # a read of so many bytes does not mind that they are too few
                raise http.client.IncompleteRead(data, self.length)
            return data

        def close(self):
            self.clock.stop()
            super().close()

    def connection(base):
        class Connection(base):
            clock = None

            def __init__(self, *arguments, **keywords):
                super().__init__(*arguments, **keywords)
                self._create_connection = self._connect

            def _connect(self, *arguments, **keywords):
                made = _connect(limits)(*arguments, **keywords)
                self.clock = _Clock(made, self.timeout)
                self.response_class = type("Guarded", (Response,), {"clock": self.clock})
                return made

            def connect(self):
                with self._in_time():
                    super().connect()

            def getresponse(self):
                with self._in_time():
                    return super().getresponse()

            @contextlib.contextmanager
            def _in_time(self):
                try:
                    yield
                except Exception:
                    if self.clock is None:
                        raise
                    self.clock.stop()
                    if self.clock.late.is_set():
                        raise TimeoutError(too_late) from None
                    raise

        return Connection

    def in_time(request):
        """The request with what is left of its time; redirects do not begin anew."""
        request.until = getattr(request, "until", time.monotonic() + limits.seconds)
        request.timeout = request.until - time.monotonic()
        if request.timeout <= 0:
            raise TimeoutError(too_late)
        return request

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request):
            return self.do_open(connection(http.client.HTTPConnection), in_time(request))

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(connection(http.client.HTTPSConnection), in_time(request), context=self._context)

    class Redirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request, answer, code, message, headers, url):
            if urllib.parse.urlsplit(url).scheme not in SCHEMES:
                raise OSError(f"refused: redirect to {url[:80]!r}")
            found = super().redirect_request(request, answer, code, message, headers, url)
            found.until = request.until
            return found

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        Http(),
        Https(),
        Redirect(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


# --- a run of img2dataset -------------------------------------------------------------------------------


def fetch(
    urls: Sequence[str],
    work: str | Path,
    *,
    timeout: float,
    retries: int,
    max_bytes: int,
    download_threads: int,
    allowed_networks: Sequence[str] = (),
    proxy: str | None = None,
    owner: str = "",
) -> pd.DataFrame:
    """Download ``urls`` with img2dataset into folders below ``work``.

    Downloads and final refusals are cached there; what failed otherwise, by a timeout or without a connection, is tried
    again by each call.

    Returns one row per URL, in their order: url, fate (``fetched``, ``dead``, ``timeout``, ``opted out``,
    ``refused`` or ``too large``), reason (as the server or the guard said), path, offset, length (of the bytes,
    as they came) and sha256. Files are named by number: no part of a URL is ever a part of a path.

    Raises ConnectionError when nearly all of a list's URLs failed in such a way: not these servers are down, but this
    machine's network, or a proxy.

    Parameters
    ----------
    timeout : seconds for a whole download; retries : further attempts; max_bytes : of an answer
    allowed_networks : which may be asked though their addresses are not public
    owner : of several processes that share ``work``, each has a name of its own
    proxy : address of an HTTP proxy; it is trusted, so nothing is known about the addresses behind it
    """
    allowed = [url for url in urls if url.split(":", 1)[0].lower() in SCHEMES]
    limits = Limits(timeout, max_bytes, ANY if proxy else tuple(allowed_networks))
    # Another limit can lead to another fate: what was downloaded under other ones is not asked.
    place = Path(work) / hashlib.sha256(json.dumps([asdict(limits), retries]).encode()).hexdigest()[:8]
    found = [table[is_final(table)] for table in map(pd.read_parquet, sorted(place.glob("*/fetched.parquet")))]
    known = {url for table in found for url in table["url"]}
    fresh = [url for url in dict.fromkeys(allowed) if url not in known]
    for start in range(0, len(fresh), LIST_SIZE):
        few = fresh[start : start + LIST_SIZE]
        # img2dataset takes a shard for done if its JSON exists, even for other URLs: one folder per list and attempt.
        name = hashlib.sha256("\n".join([owner, *few]).encode()).hexdigest()[:16]
        folders = (place / f"{name}-{attempt}" for attempt in itertools.count())
        folder = next(folder for folder in folders if not (folder / "fetched.parquet").exists())
        found.append(_fetch_list(few, folder, limits, retries, download_threads, proxy))
        _check_outage(found[-1])
    columns = ["url", "fate", "reason", "path", "offset", "length", "sha256"]
    table = pd.concat(found) if found else pd.DataFrame(columns=columns)
    table = table.drop_duplicates("url").set_index("url").reindex(urls).reset_index(names="url")
    other = ~table["url"].isin(allowed)
    table.loc[other, "fate"], table.loc[other, "reason"] = "refused", "neither http nor https"
    lost = table["fate"].isna()
    table.loc[lost, "fate"], table.loc[lost, "reason"] = "dead", "no answer was recorded"
    return table[columns]


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
            "is this machine's network up? What was downloaded is kept; start again to go on"
        )


def _fetch_list(urls: list[str], folder: Path, limits: Limits, retries: int, threads: int, proxy) -> pd.DataFrame:
    """The rows of a list's URLs, in a new folder or one in which a killed download had begun."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "urls.parquet") as temporary:
        pd.DataFrame({"url": urls}).to_parquet(temporary, index=False)
    _run(folder, limits, retries, threads, proxy)
    rows = _read(folder)
    with whole(folder / "fetched.parquet") as temporary:
        rows.to_parquet(temporary, index=False)
    return rows


def _run(folder: Path, limits: Limits, retries: int, threads: int, proxy: str | None) -> None:
    options = {
        "url_list": str(folder / "urls.parquet"),
        "input_format": "parquet",
        "output_folder": str(folder / "shards"),
        "output_format": "webdataset",
        "disable_all_reencoding": True,  # bytes as they came; they are decoded under our own limits
        "extract_exif": False,
        "processes_count": 1,
        "thread_count": threads,
        "timeout": limits.seconds,
        "retries": retries,
        "number_sample_per_shard": 1000,
    }
    environment = os.environ | {
        "NO_ALBUMENTATIONS_UPDATE": "1",  # img2dataset's library would ask the network
        GUARD: json.dumps(asdict(limits)),
        "http_proxy": proxy or "",
        "https_proxy": proxy or "",
        "no_proxy": "",
    }
    subprocess.run([sys.executable, "-m", __name__, json.dumps(options)], env=environment, check=True)


def _read(folder: Path) -> pd.DataFrame:
    """What became of each URL, from img2dataset's shards and their tables."""
    rows = []
    for tar in sorted((folder / "shards").glob("*.tar")):
        where = dict(images.member_places(tar))
        for row in pd.read_parquet(tar.with_suffix(".parquet")).itertuples():
            place = where.get(f"{row.key}.jpg")
            reason = row.error_message or ""
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
    # Its writer's library would import it, for nothing: half of what these processes take to start.
    sys.modules["torch"] = None
    _given = json.loads(os.environ[GUARD])
    urllib.request.install_opener(guarded_opener(Limits(**_given | {"networks": tuple(_given["networks"])})))

if __name__ == "__main__":
    from img2dataset import download

    download(**json.loads(sys.argv[1]))
