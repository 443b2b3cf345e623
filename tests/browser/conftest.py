"""A real browser, Debian's Chromium, in which the pages that augbench writes are opened and used."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = "/usr/bin/chromium"


def install():
    """Install Chromium from the distribution's packages; for root."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def missing() -> str:
    """What keeps the tests from running; empty when nothing does."""
    if Path(CHROMIUM).exists():
        return ""
    return f"there is no {CHROMIUM}: apt-get install chromium, or set CI=true as root"


@pytest.fixture(scope="session")
def browser():
    if missing() and os.environ.get("CI") and not os.geteuid() and shutil.which("apt-get"):
        install()
    if why := missing():
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser):
    """A fresh page; at the end of the test it must have said nothing on its console and asked no network."""
    context = browser.new_context(accept_downloads=True)
    made = context.new_page()
    said, asked = [], []
    made.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("request", lambda request: asked.append(request.url))
    yield made
    context.close()
    assert said == []
    assert [url[:200] for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture(scope="session")
def serious():
    """A function of a page: what axe finds on it that is serious or critical, as text."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def found(page) -> list[str]:
        violations = axe.run(page).response["violations"]
        return [
            f"{each['impact']}: {each['id']}: {each['nodes'][0]['html'][:300]}"
            for each in violations
            if each["impact"] in ("serious", "critical")
        ]

    return found
