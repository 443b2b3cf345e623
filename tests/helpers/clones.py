"""Clones of the repository in which tests really run Snakemake."""

import copy
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = "tests/workflow/small.yaml"


class Clone:
    """A copy of the working tree, without results, where a small study can be built and files edited."""

    study = SMALL

    def __init__(self, folder: Path):
        self.folder = folder
        names = subprocess.check_output(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
        )
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
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

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", *arguments]
        if "--configfile" not in arguments:
            command += ["--configfile", self.study]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options,
        )

    def snakemake(self, *arguments: str) -> tuple[int, str]:
        """Exit code and all output of a run."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=1800)
        return process.returncode, output

    def planned(self, target: str = "results/report.html") -> set[tuple[str, str]]:
        """The jobs that a run would execute now: rule and method, which is empty for rules of no method."""
        code, output = self.snakemake("-n", target)
        assert code == 0, output
        blocks = re.split(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)
        jobs = set()
        for rule, text in zip(blocks[1::2], blocks[2::2], strict=True):
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
