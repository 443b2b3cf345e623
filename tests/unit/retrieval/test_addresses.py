"""Addresses as lists have them, and the proxy that is a machine's only way out."""

import itertools
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import downloads
import pytest

from augbench.retrieval import download, guard

pytestmark = pytest.mark.middle

HOST = "http://example.org"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (f"{HOST}/a.jpg", f"{HOST}/a.jpg"),
        (HOST, f"{HOST}/"),
        (f"  {HOST}/a.jpg\n", f"{HOST}/a.jpg"),
        (f"\ufeff{HOST}/a.jpg", f"{HOST}/a.jpg"),
        (f"{HOST}/a b.jpg", f"{HOST}/a%20b.jpg"),
        (f"{HOST}/a\tb.jpg", f"{HOST}/ab.jpg"),
        (f"{HOST}/käse/猫.jpg", f"{HOST}/k%C3%A4se/%E7%8C%AB.jpg"),
        (f"{HOST}/k%C3%A4se.jpg", f"{HOST}/k%C3%A4se.jpg"),
        (f"{HOST}/100%.jpg?q=a b&n=ä'", f"{HOST}/100%.jpg?q=a%20b&n=%C3%A4%27"),
        (f"{HOST}?q=1", f"{HOST}/?q=1"),
        (f"{HOST}/a.jpg#part", f"{HOST}/a.jpg"),
        ("//example.org/a.jpg", f"{HOST}/a.jpg"),
        ("http:example.org/a.jpg", f"{HOST}/a.jpg"),
        ("http:\\\\example.org\\b\\a.jpg", f"{HOST}/b/a.jpg"),
        ("HTTP://Example.org/A.jpg", "http://Example.org/A.jpg"),
        ("http://bücher.example/a.jpg", "http://xn--bcher-kva.example/a.jpg"),
        ("http://猫。example/a.jpg", "http://xn--z7x.example/a.jpg"),
        ("http://127。0。0。1/a.jpg", "http://127.0.0.1/a.jpg"),
        ("https://[::1]:8080/a.jpg", "https://[::1]:8080/a.jpg"),
    ],
)
def test_addresses_are_put_right_as_browsers_do(written, asked):
    assert guard.spelt(written) == asked
    assert guard.spelt(asked) == asked


@pytest.mark.parametrize(
    "text", ["", "a.jpg", "file:///etc/passwd", "data:image/png;base64,AA==", "ftp://h/a", "/a.jpg"]
)
def test_what_is_no_address_of_the_web_stays_as_it_is(text):
    assert guard.spelt(text) == text


def test_whatever_is_written_what_is_asked_is_ascii_without_spaces():
    pieces = [" ", "\t", "ä", "猫", "%", "%20", "\\", "/", "?", "&", "'", '"', "<", "|", "\x7f", "\u200b", "😀"]
    for some in itertools.product(pieces, repeat=3):
        asked = guard.spelt(f"{HOST}/{''.join(some)}x.jpg")
        assert asked.isascii() and asked.isprintable() and " " not in asked
        assert guard.spelt(asked) == asked


@pytest.fixture(scope="module")
def server():
    """Serves its picture at any address, as an HTTP proxy does too."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # the name that http.server calls
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(downloads.GOOD)))
            self.end_headers()
            self.wfile.write(downloads.GOOD)

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads, made.asked = True, asked
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def fates(urls, work, **settings):
    table = download.fetch(urls, work, downloads.SETTINGS.model_copy(update=settings))
    assert list(table["url"]) == urls
    return dict(zip(urls, table["fate"], strict=True)), table


def test_odd_addresses_are_fetched_and_told_as_they_were_written(server, tmp_path):
    host = f"//127.0.0.1:{server.server_port}"
    urls = [f"{host}/a.jpg", f" http:{host}/a b.jpg", f"http:{host}/ä.jpg", f"http:{host}/a%20b.jpg", "ftp://h/a"]
    seen, _ = fates(urls, tmp_path)
    assert seen == dict.fromkeys(urls[:4], "fetched") | {urls[4]: "refused"}
    assert sorted(server.asked) == ["/%C3%A4.jpg", "/a%20b.jpg", "/a.jpg"]  # one of them twice in the list


def test_the_environments_proxy_is_used_when_asked_for_and_guards_stay(server, tmp_path, monkeypatch):
    proxy = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "localhost,private.invalid")
    urls = ["http://only-by-proxy.invalid/a.jpg", "http://192.168.7.7/a.jpg", "http://localhost:1/a.jpg"]
    server.asked.clear()
    networks = {"allowed_networks": []}
    seen, _ = fates(urls, tmp_path, proxy="environment", **networks)
    assert list(seen.values()) == ["fetched", "refused", "refused"]
    assert server.asked == [urls[0]]
    seen, _ = fates(urls[:1], tmp_path, **networks)
    assert list(seen.values()) == ["dead"] and server.asked == [urls[0]]


@pytest.mark.parametrize(
    ("environment", "proxies"),
    [
        ({"http_proxy": "http://p:1"}, {"http": "http://p:1"}),
        ({"HTTPS_PROXY": "http://p:1"}, {"https": "http://p:1"}),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "a,b"}, {"http": "p:1", "https": "p:1", "no": "a,b"}),
        ({"http_proxy": "", "HTTP_PROXY": "http://p:1"}, {}),
        ({"http_proxy": "socks5://p:1"}, "http_proxy in the environment is socks5://..., but only an http proxy"),
        ({"all_proxy": "https://p:1"}, "only an http proxy"),
    ],
)
def test_proxies_of_the_environment(environment, proxies, monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if isinstance(proxies, str):
        with pytest.raises(ValueError, match=proxies):
            guard.environment_proxies()
    else:
        assert guard.environment_proxies() == proxies
