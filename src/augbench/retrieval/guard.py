"""What a download may ask and cost: http and https only, also after redirects; no address in private ranges; no answer
larger or slower than the limits."""

import collections
import contextlib
import http.client
import ipaddress
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Limits:
    """What a single download may cost, and how many of one host there may be at a time.

    seconds : from connecting to the last byte; bytes : of the answer; networks : which may be asked though
    their addresses are not public, e.g. ``10.1.0.0/16``; proxies : ``host:port``, wherever they are; per_host :
    downloads at a time
    """

    seconds: float
    bytes: int
    networks: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    per_host: int = 4

    @property
    def too_late(self) -> str:
        return f"time limit of {self.seconds:g} s"


# --- addresses and proxies ------------------------------------------------------------------------------


AROUND = "".join(map(chr, range(0x21))) + "\u00a0\u200b\ufeff"  # control characters and spaces that come with copying


def _parts(pattern: str, text: str) -> tuple:
    """The groups of a pattern that fits any text."""
    match = re.fullmatch(pattern, text, re.DOTALL)
    assert match
    return match.groups()


def spelt(url: str) -> str:
    """An address as it is asked for: in ASCII, with everything put right that browsers put right (WHATWG URL).

    Spaces around it and line breaks inside go; backslashes are slashes; ``//host`` is ``http://host``; the host is
    IDNA, the rest UTF-8 and percent-encoded, what is encoded already as it stands. What is no address stays as it is.
    """
    text = re.sub(r"[\t\r\n]", "", url.strip(AROUND))
    scheme, rest = _parts(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(.*)", text)
    if scheme is None and re.match(r"[/\\]{2}", rest):
        scheme = "http"
    if scheme is None or scheme.lower() not in SCHEMES:
        return url
    host, path, query = _parts(r"[/\\]*([^/\\?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", rest)
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


def place_of(proxy: str) -> str:
    """``host:port`` of a proxy, without its user and password."""
    parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return f"{parts.hostname}:{parts.port or http.client.HTTP_PORT}"


# --- the guarded opener ---------------------------------------------------------------------------------


def check_address(address: str, networks: Sequence[str]) -> None:
    """Raise OSError unless a numeric address is public or in one of the networks."""
    parsed = ipaddress.ip_address(address.split("%")[0])
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if any(parsed in ipaddress.ip_network(network) for network in networks):
        return
    if not parsed.is_global or parsed.is_multicast:
        raise OSError(f"refused: {address} is not a public address")


def connect_within(limits: Limits) -> Callable:
    """``socket.create_connection`` that looks at the very address it connects to, so that no name can change."""

    def connect(place, timeout=None, source_address=None):
        host, port = place
        problem = OSError(f"no address for {host}")
        trusted = f"{host}:{port}".lower() in limits.proxies
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
            if not trusted:
                check_address(str(address[0]), limits.networks)
            connected = socket.socket(family, kind, protocol)
            connected.settimeout(min(timeout or limits.seconds, limits.seconds))
            try:
                connected.connect(address)
                return connected
            except OSError as error:
                connected.close()
                problem = error
        raise problem

    return connect


class _Gates:
    """Lets so many downloads of one host through at a time."""

    def __init__(self, per_host: int):
        self.lock = threading.Lock()
        self.gates = collections.defaultdict(lambda: threading.BoundedSemaphore(per_host))

    def open(self, request, open_request: Callable):
        """The answer to a request, when it is its turn. One that is a success holds its place until it is closed."""
        with self.lock:
            gate = self.gates[urllib.parse.urlsplit(request.full_url).hostname]
        gate.acquire()
        try:
            answer = open_request()
        except BaseException:
            gate.release()
            raise
        if answer.status == http.client.OK:
            answer.leave = gate.release
        else:  # urllib raises an error, or follows a redirect, before anybody closes it
            gate.release()
        return answer


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


def _response(limits: Limits, clock: _Clock) -> type:
    """The class of answers that are no larger and no slower than the limits."""

    class Response(http.client.HTTPResponse):
        leave: Callable[[], None] | None = None

        def read(self, amount=None):
            data = super().read(limits.bytes + 1 if amount is None else amount)
            if amount is None and len(data) > limits.bytes:
                raise OSError(f"too many bytes: more than {limits.bytes}")
            if clock.late.is_set():
                raise TimeoutError(limits.too_late)
            if amount is None and self.length:  # a read of so many bytes does not mind that they are too few
                raise http.client.IncompleteRead(data, self.length)
            return data

        def close(self):
            clock.stop()
            leave, self.leave = self.leave, None
            if leave:
                leave()
            super().close()

    return Response


def _connection(base: type, limits: Limits) -> type:
    """The class of connections, of http or https (``base``), that are within the limits."""

    class Connection(base):
        clock = None

        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            self._create_connection = self._connect

        def _connect(self, *arguments, **keywords):
            connected = connect_within(limits)(*arguments, **keywords)
            self.clock = _Clock(connected, self.timeout)
            self.response_class = _response(limits, self.clock)
            return connected

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
                    raise TimeoutError(limits.too_late) from None
                raise

    return Connection


def _in_time(request, limits: Limits):
    """The request with what is left of its time; redirects do not begin anew."""
    if request.has_proxy() or getattr(request, "_tunnel_host", None):  # of what is behind it only this is known
        host = urllib.parse.urlsplit(request.full_url).hostname or ""
        with contextlib.suppress(ValueError):  # a name
            check_address(str(ipaddress.ip_address(host)), limits.networks)
    request.until = getattr(request, "until", time.monotonic() + limits.seconds)
    request.timeout = request.until - time.monotonic()
    if request.timeout <= 0:
        raise TimeoutError(limits.too_late)
    return request


class _Redirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, answer, code, message, headers, url):
        if urllib.parse.urlsplit(url).scheme not in SCHEMES:
            raise OSError(f"refused: redirect to {url[:80]!r}")
        redirected: Any = super().redirect_request(request, answer, code, message, headers, url)
        redirected.until = request.until
        return redirected


def guarded_opener(limits: Limits) -> urllib.request.OpenerDirector:
    """An opener for http and https within ``limits``; it has no other scheme, and redirects lead to no other."""

    gates = _Gates(limits.per_host)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request):
            connection = _connection(http.client.HTTPConnection, limits)
            return gates.open(request, lambda: self.do_open(connection, _in_time(request, limits)))

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request):
            connection = _connection(http.client.HTTPSConnection, limits)
            context = self._context  # pyright: ignore[reportAttributeAccessIssue]: of HTTPSHandler
            return gates.open(request, lambda: self.do_open(connection, _in_time(request, limits), context=context))

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        Http(),
        Https(),
        _Redirect(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
