"""Downloads images from a hostile web: img2dataset, with guards that it does not have.

img2dataset spawns workers that import the main module again, and downloads through urllib's installed
opener. So this module is run as the main one (``python -m augbench.retrieval.download``), and installs a guarded opener
wherever it is imported as such: http and https only, also after redirects; no address in private ranges; no
answer larger or slower than the limits.
"""

import contextlib
import hashlib
import http.client
import importlib
import ipaddress
import itertools
import json
import math
import os
import re
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import processes
from augbench.core.files import whole

GUARD = "AUGBENCH_FETCH"  # environment variable that hands the limits to img2dataset's processes
SETTINGS = ("timeout", "retries", "max_bytes", "download_threads", "allowed_networks", "proxy")  # of the configuration
SCHEMES = ("http", "https")
ANY = ("0.0.0.0/0", "::/0")
SHARD_SIZE = 1000  # URLs after which img2dataset writes down what became of them
STARTING, RESOLVING = 300, 60  # seconds that a start of img2dataset, and a look-up of a name, may take at most
LIST_SIZE = 10_000  # URLs that one img2dataset run takes: what a kill may cost
OUTAGE, OUTAGE_LEAST = 0.95, 50  # share of a list of at least so many URLs whose failure is taken for an outage
TRANSIENT = (408, 425, 429)  # answers below 500 that may be others later: timeout, too early, too many requests
GO_ON = "what was downloaded before is kept; start again to go on"
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
    their addresses are not public, e.g. ``10.1.0.0/16``; proxies : ``host:port``, wherever they are
    """

    seconds: float
    bytes: int
    networks: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()


# --- addresses and proxies ------------------------------------------------------------------------------


AROUND = "".join(map(chr, range(0x21))) + "\u00a0\u200b\ufeff"  # control characters and spaces that come with copying


def spelt(url: str) -> str:
    """An address as it is asked for: in ASCII, with everything put right that browsers put right (WHATWG URL).

    Spaces around it and line breaks inside go; backslashes are slashes; ``//host`` is ``http://host``; the host is
    IDNA, the rest UTF-8 and percent-encoded, what is encoded already as it stands. What is no address stays as it is.
    """
    text = re.sub(r"[\t\r\n]", "", url.strip(AROUND))
    scheme, rest = re.fullmatch(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(.*)", text, re.DOTALL).groups()
    if scheme is None and re.match(r"[/\\]{2}", rest):
        scheme = "http"
    if scheme is None or scheme.lower() not in SCHEMES:
        return url
    host, path, query = re.fullmatch(r"[/\\]*([^/\\?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", rest, re.DOTALL).groups()
    try:
        host = urllib.parse.unquote(host).encode("idna" if not host.isascii() else "ascii").decode()
    except UnicodeError:
        return url
    path = urllib.parse.quote(path.replace("\\", "/") or "/", safe="/%!$&'()*+,;=:@-._~[]|^")
    return f"{scheme.lower()}://{host}{path}{urllib.parse.quote(query or '', safe='/%!$&()*+,;=:@-._~[]|^?`{}')}"


def environment_proxies() -> dict[str, str]:
    """Scheme -> proxy that the environment names for it, and ``no`` -> hosts that are asked without.

    ``all_proxy`` counts where there is no other. Raises ValueError when one of them is no HTTP proxy.
    """
    named = urllib.request.getproxies_environment()
    proxies = {scheme: named.get(scheme) or named.get("all") for scheme in SCHEMES}
    for scheme, address in proxies.items():
        kind = (address or "").rpartition("://")[0].lower()
        if kind not in ("", "http"):
            raise ValueError(f"{scheme}_proxy in the environment is {kind}://..., but only an http proxy can be used")
    return {scheme: address for scheme, address in (proxies | {"no": named.get("no")}).items() if address}


def _place_of(proxy: str) -> str:
    """``host:port`` of a proxy, without its user and password."""
    parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return f"{parts.hostname}:{parts.port or http.client.HTTP_PORT}"


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
        trusted = f"{place[0]}:{place[1]}".lower() in limits.proxies
        for family, kind, protocol, _, address in socket.getaddrinfo(*place, 0, socket.SOCK_STREAM):
            if not trusted:
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
        if request.has_proxy() or getattr(request, "_tunnel_host", None):  # of what is behind it only this is known
            host = urllib.parse.urlsplit(request.full_url).hostname or ""
            with contextlib.suppress(ValueError):  # a name
                _check(str(ipaddress.ip_address(host)), limits.networks)
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
    proxy : address of an HTTP proxy, or ``environment`` for those that it names; a proxy is trusted, and of the names
        behind it no address is known
    """
    asked = {url: spelt(url) for url in urls}
    allowed = [address for address in asked.values() if address.split(":", 1)[0].lower() in SCHEMES]
    proxies = environment_proxies() if proxy == "environment" else dict.fromkeys(SCHEMES, proxy or "")
    networks, trusted = (
        tuple(allowed_networks),
        tuple({_place_of(proxies[name]) for name in SCHEMES if proxies.get(name)}),
    )
    # Another limit can lead to another fate: what was downloaded under other ones is not asked.
    known_by = {"seconds": timeout, "bytes": max_bytes, "networks": ANY if proxy else networks}
    place = Path(work) / hashlib.sha256(json.dumps([known_by, retries]).encode()).hexdigest()[:8]
    limits = Limits(timeout, max_bytes, networks, trusted)
    found = [table[is_final(table)] for table in map(pd.read_parquet, sorted(place.glob("*/fetched.parquet")))]
    known = {url for table in found for url in table["url"]}
    fresh = [url for url in dict.fromkeys(allowed) if url not in known]
    for start in range(0, len(fresh), LIST_SIZE):
        few = fresh[start : start + LIST_SIZE]
        # img2dataset takes a shard for done if its JSON exists, even for other URLs: one folder per list and attempt.
        name = hashlib.sha256("\n".join([owner, *few]).encode()).hexdigest()[:16]
        folders = (place / f"{name}-{attempt}" for attempt in itertools.count())
        folder = next(folder for folder in folders if not (folder / "fetched.parquet").exists())
        found.append(_fetch_list(few, folder, limits, retries, download_threads, proxies))
        _check_outage(found[-1])
    columns = ["url", "fate", "reason", "path", "offset", "length", "sha256"]
    table = pd.concat(found) if found else pd.DataFrame(columns=columns)
    table = table.drop_duplicates("url").set_index("url").reindex([asked[url] for url in urls]).reset_index(names="url")
    other = ~table["url"].isin(allowed)
    table["url"] = list(urls)
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
            f"is this machine's network up? {GO_ON[0].upper()}{GO_ON[1:]}"
        )


def _fetch_list(urls: list[str], folder: Path, limits: Limits, retries: int, threads: int, proxies) -> pd.DataFrame:
    """The rows of a list's URLs, in a new folder or one in which a killed download had begun."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "urls.parquet") as temporary:
        pd.DataFrame({"url": urls}).to_parquet(temporary, index=False)
    _run(folder, limits, retries, threads, proxies)
    rows = _read(folder)
    with whole(folder / "fetched.parquet") as temporary:
        rows.to_parquet(temporary, index=False)
    return rows


def _run(folder: Path, limits: Limits, retries: int, threads: int, proxies: dict[str, str]) -> None:
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
    limit = STARTING + math.ceil(SHARD_SIZE / threads) * (retries + 1) * (limits.seconds + RESOLVING)
    command = [sys.executable, "-m", __name__, json.dumps(options)]
    try:
        code = processes.run(command, environment=environment, progress=written, limit=limit)
    except TimeoutError as error:
        raise RuntimeError(f"the download into {folder} stands still: {error}; {GO_ON}") from None
    if code:
        raise RuntimeError(f"the download into {folder} was broken off (exit code {code}, see above); {GO_ON}")


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
    _given |= {name: tuple(_given[name]) for name in ("networks", "proxies")}
    urllib.request.install_opener(guarded_opener(Limits(**_given)))


def _distribute(count: int, downloader: Callable, shards: Iterable, _, retries: int) -> None:
    """Takes the place of img2dataset's distributor, which waits without end for a process that was killed.

    Raises BrokenProcessPool then.
    """
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        for _ in range(retries + 1):
            shards = [shard for done, shard in pool.map(downloader, shards) if not done]


def _download(options: dict) -> None:
    main = importlib.import_module("img2dataset.main")  # its package has a function of that name
    main.multiprocessing_distributor = _distribute
    try:
        with processes.ended_on_error():
            main.download(**options)
    except BrokenProcessPool:
        raise SystemExit("a process of the download was killed, perhaps for want of memory") from None


if __name__ == "__main__":
    _download(json.loads(sys.argv[1]))
