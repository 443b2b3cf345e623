"""Clones of the repository in which tests really run Snakemake."""

import copy
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from shared import locked

ROOT = Path(__file__).parents[2]
SMALL = "tests/workflow/small.yaml"
# What results are made from, but for the packages, which the lock names.
MAKERS = ("Snakefile", "config/", "resources/", "src/", "workflow/", "requirements.lock", SMALL)
# Snakemake that prints what it knows of a job, not the rule's message in its place.
PLANNER = """
from snakemake import cli, logging
logging.DefaultFormatter.format_job_info = lambda self, job: "\\n".join(self._format_job_info(job))
cli.main()
"""


def tracked() -> list[str]:
    """The files of the working tree that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")
    return sorted(name for name in names if (ROOT / name).is_file())


class Clone:
    """A copy of the working tree, without results, where a small study can be built and files edited; a folder that is
    one already stays as it is."""

    study = SMALL
    overlays = ()  # configurations that replace some of its keys

    def __init__(self, folder: Path):
        self.folder = folder
        if (folder / "Snakefile").exists():
            return
        for name in tracked():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)

    def copy(self, folder: Path) -> "Clone":
        """The clone as it is now, with its results and what Snakemake remembers of them, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        copied = copy.copy(self)
        copied.folder = folder
        return copied

    @property
    def environment(self) -> dict:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PYTHONPATH": str(self.folder / "src"), "PATH": path}

    def start(self, *arguments: str, program: tuple[str, str] = ("-m", "snakemake"), **options) -> subprocess.Popen:
        command = [sys.executable, *program, *arguments]
        if "--configfile" not in arguments:
            command += ["--configfile", self.study, *self.overlays]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options,
        )

    def snakemake(self, *arguments: str, **options) -> tuple[int, str]:
        """Exit code and all output of a run."""
        process = self.start(*arguments, **options)
        output, _ = process.communicate(timeout=1800)
        return process.returncode, output

    def plan(self, *arguments: str) -> list[tuple[str, str]]:
        """The jobs that a run with these arguments would execute: rule, and what Snakemake says of the job."""
        code, output = self.snakemake("-n", *arguments, program=("-c", PLANNER))
        assert code == 0, output
        blocks = re.split(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)
        return list(zip(blocks[1::2], blocks[2::2], strict=True))

    def planned(self, *targets: str) -> set[tuple[str, str]]:
        """The jobs that a run would execute now: rule and method, which is empty for rules of no method."""
        jobs = set()
        for rule, text in self.plan(*(targets or ["results/report.html"])):
            method = re.search(r"^    wildcards: .*\bmethod=(\w+)", text, re.MULTILINE)
            jobs.add((rule, method[1] if method else ""))
        return jobs - {("all", "")}

    def digests(self, *patterns: str) -> dict[str, str]:
        """Path -> SHA-256 of the files below results/small, but for the table of the time that was measured."""
        results = self.folder / "results" / "small"
        return {
            str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in patterns
            for path in sorted(results.glob(pattern))
            if path.is_file() and path.name != "compute.csv"
        }


def kept_small_study(cache: Path) -> Clone:
    """A clone in which the small study was built: once for all processes of a test run, and for later runs that would
    build the same. Tests only read it."""
    total = hashlib.sha256(f"{sys.version} {cache}".encode())
    for name in tracked():
        if name.startswith(MAKERS):
            total.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    folder = cache / total.hexdigest()[:16]
    with locked(cache / "lock"):
        if not (folder / "complete").exists():
            for old in cache.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            code, output = Clone(folder).snakemake("--cores", "2")
            assert code == 0, output
            (folder / "complete").touch()
    return Clone(folder)
