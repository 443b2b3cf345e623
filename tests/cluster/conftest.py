"""A real SLURM cluster, and a clone of the repository in which its profile is used as typed."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import slurm_cluster
from clones import Clone

OVERLAY = "tests/cluster/study.yaml"
FAULTS = Path(__file__).parent / "faults"
LIMIT = 1500  # seconds that any run of Snakemake may take: none may hang


class OnCluster(Clone):
    """A clone whose runs are submitted; jobs may be given faults, see ``faults/sitecustomize.py``."""

    overlays = (OVERLAY,)
    running = ()

    @property
    def environment(self) -> dict:
        given = super().environment
        path = f"{FAULTS}{os.pathsep}{given['PYTHONPATH']}"
        return given | {"PYTHONPATH": path, "AUGBENCH_FAULTS": str(self.folder / "faults")}

    def fault(self, script: str, *kinds: str) -> None:
        """The next processes of a rule's script each suffer one of these."""
        place = self.folder / "faults" / script
        place.mkdir(parents=True, exist_ok=True)
        for number, kind in enumerate(kinds):
            (place / f"{number}-{kind}").touch()

    def where(self) -> list[tuple[str, str, str]]:
        """Job, script and visible GPUs of each process that ran a rule's script."""
        return [tuple(line.split("|")) for line in (self.folder / "faults" / "where").read_text().splitlines()]

    def taken(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "faults").glob("taken-*"))

    def submitted(self, *arguments: str, **options) -> subprocess.Popen:
        # Asked for its jobs more often than a real cluster should be.
        often = ["--slurm-init-seconds-before-status-checks", "2"]
        # Where these tests run in the background, Ctrl-C is ignored, and so would it be by what they start.
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        options |= {"start_new_session": True, "preexec_fn": heard}
        process = self.start("--profile", "slurm", *often, *arguments, **options)
        self.running = [*self.running, process]
        return process

    def end(self) -> None:
        """Kill what a failed test leaves, and unlock: the next one is not to fail for it."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()
                self.snakemake("--unlock")
        self.running = []

    def submit(self, *arguments: str) -> str:
        """Run `snakemake --profile slurm ...` to its end; its output."""
        process = self.submitted(*arguments)
        output, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, output[-6000:]
        return output


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if slurm_cluster.missing() and os.environ.get("CI") and not os.geteuid():
        slurm_cluster.install()
    if why := slurm_cluster.missing():
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    made = slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def local(small_study, tmp_path_factory):
    """The study, built on this machine without a cluster, from the small study, of which it wants most."""
    made = small_study.copy(tmp_path_factory.mktemp("local") / "clone")
    made.overlays = (OVERLAY,)
    code, output = made.snakemake("results/report.html", "--cores", "2")
    assert code == 0, output[-6000:]
    return made


@pytest.fixture(scope="session")
def remote(cluster, tmp_path_factory):
    """The study, built wholly by jobs of the cluster."""
    made = OnCluster(tmp_path_factory.mktemp("remote"))
    made.output = made.submit("results/report.html")
    made.jobs, made.ran = dict(cluster.look()), made.where()  # before other tests run more
    return made
