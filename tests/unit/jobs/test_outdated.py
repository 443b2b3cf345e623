"""`make outdated` names what holds a package back and since when one could go on, and says so when it cannot ask."""

import hashlib
import http.server
import importlib.util
import json
import threading
from pathlib import Path

import pytest
from packaging.requirements import Requirement


def tool():
    spec = importlib.util.spec_from_file_location("outdated", Path("envs/outdated.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


outdated = tool()
Release = outdated.Release


def facts(newer=(), current=(), without=lambda owner, requirement: None, fits=True):
    newer = {name: outdated.Newer(*rest) for name, *rest in newer}
    return outdated.Facts(newer, dict(current), without, lambda requirement: fits)


def test_holders_are_those_whose_requirement_excludes_the_newest():
    required = {"old-one 1.0": [Requirement("A_b<2")], "open-one 3.0": [Requirement("a-b>=1")]}
    newer = [("a-b", "1.9", Release("2.0", "2026-01-02"), "2.3"), ("free", "1", Release("2"), "2")]
    known = facts(newer, {"old-one": Release("1.0", "2025-08-15")})
    assert outdated.report_outdated(required, [Requirement("a-b<2,>=1")], known) == [
        "a-b 1.9 -> 2.3 (since 2026-01-02, first 2.0): pyproject.toml asks for a-b<2,>=1; "
        "old-one 1.0 asks for A_b<2 and is its newest release, of 2025-08-15",
        "free 1 -> 2 (first 2): make lock UPGRADE=1 takes it",
    ]


@pytest.mark.parametrize(
    ("lifting", "words"),
    [(Release("1.2", "2026-03-04"), "; no longer does 1.2 of 2026-03-04"), (None, ", and so does each newer release")],
)
def test_a_holder_with_newer_releases_is_asked_for_the_first_that_lets_go(lifting, words):
    asked = []
    newer = [("held", "1.0", Release("2.0"), "2.1"), ("holder", "1.0", Release("1.1"), "1.3")]
    known = facts(newer, without=lambda *question: asked.append(question) or lifting)
    line, _ = outdated.report_outdated({"holder 1.0": [Requirement("held<2")]}, [], known)
    assert line == f"held 1.0 -> 2.1 (first 2.0): holder 1.0 asks for held<2{words}"
    assert asked == [("holder 1.0", "held==2.1")]


def test_exact_pins_of_one_package_share_a_line():
    newer = [("a", "1", Release("2"), "3"), ("b", "1", Release("2"), "2"), ("torch", "5", Release("6"), "6")]
    required = {"torch 5": [Requirement("a==1"), Requirement("b==1")]}
    *_, line = outdated.report_outdated(required, [Requirement("torch==5")], facts(newer))
    assert line == "torch 5 holds exact versions, and goes first: a 1 -> 3, b 1 -> 2"


def test_a_package_that_nobody_holds_may_require_what_others_exclude():
    (line,) = outdated.report_outdated({}, [], facts([("a", "1", Release("2"), "3")], fits=False))
    assert line.endswith("what it requires itself is excluded by others")


def test_every_override_is_still_needed():
    lines = outdated.report_overrides(outdated.installed_requirements(), None)
    assert lines and not [line for line in lines if "can go" in line]


def test_an_override_that_nobody_needs_is_named():
    assert all("the override can go" in line for line in outdated.report_overrides({}, facts()))


def test_without_an_index_it_says_so_and_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "uv").write_text("#!/bin/sh\necho 'error: no network' >&2\nexit 2\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert outdated.main() == 1
    said = capsys.readouterr()
    assert "Overrides" in said.out
    assert said.err.strip() == "The package index cannot be asked what is newer: error: no network"


# --- what uv makes of an index --------------------------------------------------------------------------

RELEASES = {  # name -> version -> day, requirement
    "held": {"1.0": ("2025-01-01", ""), "2.0": ("2026-01-02", ""), "2.1": ("2026-02-03", "")},
    "holder": {
        "1.0": ("2025-01-05", "held<2"),
        "1.1": ("2025-06-07", "held<2"),
        "1.2": ("2026-03-04", "held"),
        "1.3": ("2026-04-05", "held"),
    },
}


def answer(path: str, says_days: bool) -> bytes | None:
    """What an index has at a path: the releases of a package (PEP 691), or the metadata of one (PEP 658)."""
    *_, folder, last = path.split("/")
    if last.endswith(".metadata"):
        name, version, *_ = last.split("-")
        required = RELEASES[name][version][1]
        rows = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        return "\n".join([*rows, *[f"Requires-Dist: {required}"] * bool(required), ""]).encode()
    if folder not in RELEASES or last:
        return None
    files = []
    for version, (day, _) in RELEASES[folder].items():
        wheel = f"{folder}-{version}-py3-none-any.whl"
        hashes = {"sha256": hashlib.sha256(wheel.encode()).hexdigest()}  # uv takes files of one hash for one
        files.append({"filename": wheel, "url": wheel, "hashes": hashes, "core-metadata": True, "size": 1})
        files[-1] |= {"upload-time": f"{day}T10:00:00.000000Z"} if says_days else {}
    return json.dumps({"meta": {"api-version": "1.1"}, "name": folder, "versions": [], "files": files}).encode()


@pytest.fixture(params=[True, False], ids=["days", "no days"])
def index(request, tmp_path, monkeypatch):
    """An index that uv is configured for; whether it says when releases were uploaded."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = answer(self.path, request.param)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield request.param
    server.shutdown()
    server.server_close()


@pytest.mark.middle
def test_the_index_is_asked_for_releases_and_their_days(index):
    def release(version, day):
        return Release(version, day if index else "")

    first = outdated.first_releases(["held>1.0", "holder==1.1"], alone=True)
    assert first == {"held": release("2.0", "2026-01-02"), "holder": release("1.1", "2025-06-07")}
    assert outdated.first_without("holder 1.0", "held==2.1") == release("1.2", "2026-03-04")
    assert outdated.first_without("holder 1.3", "held==2.1") is None
    assert outdated.first_without("holder 1.0", "held==9") is None
    assert facts([("held", "1.0", first["held"], "2.1")]).has_days == index
