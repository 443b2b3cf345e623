"""A real SLURM cluster on one machine: nodes v100, v100b and t4 with eight fake GPUs each, and a node cpu without."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

NODES = ["v100", "v100b", "t4", "cpu"]
PARTITIONS = {"v100": ["v100", "v100b"], "t4": ["t4"], "cpu": ["cpu"]}
GPUS = {"v100": "v100", "v100b": "v100", "t4": "t4"}  # node -> type of its GPUs
ETC, BEFORE = Path("/etc/slurm"), Path("/etc/slurm.before-test")
PACKAGES = ["slurm-wlm", "munge"]

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.socket
StateSaveLocation={folder}/state/ctld
SlurmdSpoolDir={folder}/state/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MinJobAge=300
MaxArraySize=1001
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
"""


def missing() -> str:
    """What keeps a cluster from being started here, in one sentence; empty if nothing does."""
    if os.geteuid():
        return "a SLURM cluster is started by root; run the tests in tests/cluster as root"
    if not all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged")):
        return f"SLURM is not installed: apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    return ""


def install() -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL, timeout=600)


def wait_for(condition, seconds: float, what: str):
    """What ``condition()`` returns, as soon as that is true. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise TimeoutError(f"after {seconds:g} s still no {what}")


class Cluster:
    """munged, slurmctld and a slurmd for each node, all of whose files lie below ``folder``."""

    def __init__(self, folder: Path):
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        self.jobs: dict[str, dict] = {}
        self.ended = threading.Event()

    def start(self) -> None:
        for name in ("etc", "state/ctld", *(f"state/{node}" for node in NODES), "log", "run", "dev", "munge"):
            (self.folder / name).mkdir(parents=True)
        self._write()
        if ETC.is_symlink():  # left by a test that was killed
            ETC.unlink()
        elif ETC.exists():
            ETC.rename(BEFORE)
        ETC.symlink_to(self.folder / "etc")
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        (self.folder / "munge").chmod(0o700)
        (self.folder / "run").chmod(0o755)
        munge = {
            "key-file": key,
            "socket": self.folder / "run/munge.socket",
            "pid-file": self.folder / "run/munged.pid",
        }
        munge |= {"log-file": self.folder / "munge/log", "seed-file": self.folder / "munge/seed"}
        # Scratch folders of tests may be open to others, which munged minds and a test need not.
        _run("munged", "--force", *(f"--{name}={value}" for name, value in munge.items()))
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: len(self.idle()) == len(NODES), 180, "idle nodes")
        threading.Thread(target=self._watch, daemon=True).start()

    def _write(self) -> None:
        first = 20_000 + os.getpid() % 10_000  # of the ports; a cluster of a killed test may still have others
        text = CONFIG.format(host=self.host, folder=self.folder, port=first)
        gres = "AutoDetect=off\n"
        for port, node in enumerate(NODES, first + 1):
            text += f"NodeName={node} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={port} CPUs=16 Boards=1 "
            text += "SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=64000"
            if node in GPUS:
                text += f" Gres=gpu:{GPUS[node]}:8"
                gres += f"NodeName={node} Name=gpu Type={GPUS[node]} File={self.folder}/dev/{node}_[0-7]\n"
                for i in range(8):  # a character device that reads as empty: what a GPU is to SLURM
                    os.mknod(self.folder / "dev" / f"{node}_{i}", 0o20666, os.makedev(1, 3))
            text += "\n"
        for partition, nodes in PARTITIONS.items():
            text += f"PartitionName={partition} Nodes={','.join(nodes)} MaxTime=INFINITE State=UP\n"
        (self.folder / "etc/slurm.conf").write_text(text)
        (self.folder / "etc/gres.conf").write_text(gres)
        (self.folder / "etc/cgroup.conf").write_text("CgroupAutomount=no\n")

    def start_controller(self) -> None:
        _run("slurmctld")

    def start_node(self, node: str) -> None:
        _run("slurmd", "-N", node)

    def idle(self) -> list[str]:
        return _run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False).split()

    def state(self, node: str) -> str:
        """E.g. idle, mixed, down* (the star: it does not answer); empty while the controller does not answer."""
        return _run("sinfo", "-h", "-n", node, "-N", "-o", "%t", check=False).strip()

    def kill(self, daemon: str, how: int = signal.SIGKILL) -> None:
        """End a daemon: ``slurmctld``, ``munged`` or a node's name; waits until it is gone."""
        file = self.folder / "run" / f"{daemon}.pid"
        pid = int(file.read_text())
        os.kill(pid, how)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), 30, f"end of {daemon}")

    def _watch(self) -> None:
        """Remember each job's last record: SLURM forgets it some minutes after its end."""
        while not self.ended.wait(2):
            self.look()

    def look(self) -> dict[str, dict]:
        """The last record of each job since the cluster was started: JobState, Comment, Partition, TresPerJob, ..."""
        for line in _run("scontrol", "show", "job", "--oneliner", check=False).splitlines():
            record = dict(re.findall(r"(\w+)=(\S*)", line))
            if "JobId" in record and "JobState" in record:
                self.jobs[record["JobId"]] = record
        return self.jobs

    def queue(self) -> list[dict]:
        """The records of jobs that wait or run."""
        return [record for record in self.look().values() if record["JobState"] in ("PENDING", "RUNNING", "COMPLETING")]

    def stop(self) -> None:
        subprocess.run(["scancel", "--user=root"], timeout=30)
        wait_for(lambda: not self.queue(), 300, "empty queue")
        self.ended.set()
        for daemon in (*NODES, "slurmctld", "munged"):
            if (self.folder / "run" / f"{daemon}.pid").exists():
                self.kill(daemon, signal.SIGTERM)
        ETC.unlink()
        if BEFORE.exists():
            BEFORE.rename(ETC)


def _run(*command: str, check: bool = True) -> str:
    try:
        return subprocess.run(command, check=check, text=True, capture_output=True, timeout=60).stdout
    except subprocess.TimeoutExpired:
        if check:
            raise
        return ""  # the controller is away, or the machine very busy
