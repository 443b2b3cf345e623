"""What goes wrong on clusters, done to a real one: every run ends in the same tables, and finished work is kept."""

import collections
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm_cluster import wait_for

pytestmark = pytest.mark.slow

TABLE = "results/small/tables/table1.csv"
FINE_TUNED = "results/small/finetune/pseudoword_dm/lr-1.csv"


@pytest.fixture
def unfinished(remote, cluster):
    """The study without its classifiers of two methods; afterwards its tables must be the same bytes again."""

    def forget(*places):
        """Also what follows from them: Snakemake does not look behind a result that is there."""
        for place in places:
            shutil.rmtree(remote.folder / "results" / "small" / place)
        shutil.rmtree(remote.folder / "results/small/summary", ignore_errors=True)
        for name in ("table1", "scaling"):
            (remote.folder / f"results/small/tables/{name}.csv").unlink(missing_ok=True)

    before = remote.digests("tables/*.csv")
    forget("classifier/none", "classifier/clip_prompts")
    shutil.rmtree(remote.folder / "faults", ignore_errors=True)
    remote.forget, remote.known = forget, set(cluster.look())
    yield remote
    remote.end()
    assert remote.digests("tables/*.csv") == before
    assert not cluster.queue()


def jobs_of(remote, cluster):
    """How many jobs were submitted for each rule since the test began."""
    fresh = [record for number, record in cluster.look().items() if number not in remote.known]
    counts = collections.Counter(re.match(r"rule_([a-z]+(_[a-z]+)*?)(_wildcards|$)", r["Comment"])[1] for r in fresh)
    print(f"\njobs: {dict(counts)}")
    return counts


def hit(remote, count, seconds=600):
    """The job numbers of processes that have met a fault, once there are so many; by the fault's name."""
    names = wait_for(lambda: len(remote.taken()) >= count and remote.taken(), seconds, f"{count} faults met")
    return {kind: job for _, _, _, kind, job in (name.split("-") for name in names)}


def end(process, limit=1500):
    output, _ = process.communicate(timeout=limit)
    assert process.returncode == 0, output[-6000:]
    return output


def test_failed_cancelled_late_and_oversized_jobs_are_run_again(unfinished, cluster):
    unfinished.forget("classifier/more_real", "classifier/retrieval")
    unfinished.fault("classify", "exit", "memory", "hang", "deaf")
    process = unfinished.submitted(TABLE)
    met = hit(unfinished, 4)
    subprocess.run(["scancel", met["hang"]], check=True)
    subprocess.run(["scontrol", "update", f"JobId={met['deaf']}", "TimeLimit=1"], check=True)
    end(process)
    assert jobs_of(unfinished, cluster)["classify"] == 4 + 4
    states = {fault: cluster.jobs[number]["JobState"] for fault, number in met.items()}
    print(states)
    assert states == {"exit": "FAILED", "memory": "FAILED", "hang": "CANCELLED", "deaf": "TIMEOUT"}
    again = [r for n, r in cluster.jobs.items() if n not in {*unfinished.known, *met.values()}]
    second = sorted((megabytes(r), r["TimeLimit"]) for r in again if "rule_classify" in r["Comment"])
    first = sorted(megabytes(cluster.jobs[number]) for number in met.values())
    print(f"memory (MB) of the first attempts {first}; memory and time limit of the second {second}")
    assert [asked for asked, _ in second] == [2 * asked for asked in first]


def megabytes(record):
    return int(record["MinMemoryNode"].removesuffix("M"))


PREEMPTED = ["scancel", "--signal=TERM"]
AT_ITS_LIMIT = ["scontrol", "update", "TimeLimit=1"]  # a minute, and five before it the profile has SIGTERM sent: now


@pytest.fixture(scope="module")
def longer(remote, tmp_path_factory):
    """The study, with a fine-tuning that takes long; and what that gives when nothing ends it."""
    made = remote.copy(tmp_path_factory.mktemp("longer") / "clone")
    made.overlays = (*remote.overlays, "tests/cluster/long_training.yaml")
    made.submit(FINE_TUNED)
    made.whole = made.digests("finetune/*/lr-1.csv", "finetune/*/lr-1/**/*")
    assert len(made.whole) > 1
    yield made
    made.end()


@pytest.mark.parametrize("command", [PREEMPTED, AT_ITS_LIMIT], ids=["preempted", "at-its-limit"])
def test_a_fine_tuning_that_is_ended_goes_on_where_it_was(longer, cluster, command):
    shutil.rmtree(longer.folder / Path(FINE_TUNED).parent)
    log = longer.folder / "results/small/logs/finetune/pseudoword_dm-lr-1.log"
    log.unlink()
    longer.known = set(cluster.look())
    process = longer.submitted(FINE_TUNED)

    state = longer.folder / Path(FINE_TUNED).with_name(".lr-1.partial") / "state.safetensors"
    wait_for(state.exists, 600, "state")
    (running,) = (record["JobId"] for record in cluster.queue())
    subprocess.run([*command, running if command is PREEMPTED else f"JobId={running}"], check=True)
    end(process)
    # The first attempt's log is gone: what it saved shows in the second's.
    assert re.search(r"going on in epoch \d+", log.read_text())
    print(cluster.jobs[running]["JobState"])
    assert jobs_of(longer, cluster)["finetune"] == 2
    assert longer.digests("finetune/*/lr-1.csv", "finetune/*/lr-1/**/*") == longer.whole


def test_a_node_and_the_controller_of_slurm_die_and_come_back(unfinished, cluster):
    unfinished.fault("classify", "slow15", "slow15")
    process = unfinished.submitted(TABLE)
    hit(unfinished, 2)
    cluster.kill("t4")
    try:
        wait_for(lambda: "down" in cluster.state("t4"), 300, "node that is down")
        cluster.kill("slurmctld")
        time.sleep(5)
        cluster.start_controller()
    finally:
        cluster.start_node("t4")
    end(process)
    # SLURM itself puts the jobs of the node that died into its queue again.
    print(
        jobs_of(unfinished, cluster),
        [cluster.jobs[n].get("Restarts") for n in cluster.jobs if n not in unfinished.known],
    )


@pytest.mark.parametrize(("option", "classifier_jobs"), [([], 4), (["--wait"], 2)])
def test_snakemake_killed_and_at_once_restarted(unfinished, cluster, option, classifier_jobs):
    unfinished.fault("classify", "slow15", "slow15")
    process = unfinished.submitted(TABLE)
    hit(unfinished, 2)

    def restart():
        command = [
            sys.executable,
            "slurm/restart",
            *option,
            TABLE,
            "--configfile",
            unfinished.study,
            *unfinished.overlays,
        ]
        given = {"cwd": unfinished.folder, "env": unfinished.environment, "timeout": 1500}
        return subprocess.run(command, text=True, capture_output=True, **given)

    early = restart()
    assert early.returncode == 1 and "still runs here" in early.stderr
    process.send_signal(signal.SIGKILL)
    process.communicate()
    output = restart()
    assert output.returncode == 0, output.stdout + output.stderr[-6000:]
    assert "orphaned jobs" in output.stdout
    assert jobs_of(unfinished, cluster)["classify"] == classifier_jobs


def test_a_partial_target_submits_nothing_of_other_methods(unfinished, cluster):
    unfinished.submit("results/small/summary/clip_prompts.json")
    fresh = [record["Comment"] for number, record in cluster.look().items() if number not in unfinished.known]
    assert len(fresh) == 1 and "classify" in fresh[0] and "clip_prompts" in fresh[0]
    unfinished.submit(TABLE)
