"""The status page of real runs, and what the terminal says of their stages."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TARGET = "results/small/target/images.parquet"


@pytest.fixture(scope="module")
def fresh(clone):
    return clone()


def test_a_run_that_fails_and_one_that_goes_on(fresh):
    page = Path(fresh.folder / "results" / "small" / "status.html")
    script = fresh.folder / "workflow" / "scripts" / "split_target.py"
    before = script.read_text()
    script.write_text(before + "\nraise ValueError('the <disk> & is full')\n")
    code, output = fresh.snakemake(TARGET, "--cores", "1")
    assert code != 0
    text = page.read_text(encoding="utf-8")
    assert "small: failed" in text and "<script" not in text
    assert "1 of 2 jobs done, 0 running" in text and "1 failed" in text
    assert "the end of <code>results/small/logs/dataset/split.log</code>" in text
    assert "ValueError: the &lt;disk&gt; &amp; is full" in text
    assert re.search(r"^split_target: 1 failed", output, re.M), output
    assert re.search(r"^digits_target: 1 done", output, re.M), output

    script.write_text(before)
    code, output = fresh.snakemake(TARGET, "--cores", "1")
    assert code == 0, output
    text = page.read_text(encoding="utf-8")
    assert "small: finished" in text and "2 of 2 jobs done" in text
    assert "Last error" not in text
    assert not list(page.parent.glob(".status*"))


def test_a_dry_run_and_one_without_work_leave_the_page(fresh):
    page = Path(fresh.folder / "results" / "small" / "status.html")
    before = page.read_bytes()
    for arguments in ((TARGET, "--cores", "1"), ("-n", "results/report.html")):
        assert fresh.snakemake(*arguments)[0] == 0
        assert page.read_bytes() == before
