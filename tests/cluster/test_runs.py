"""The study built by a real SLURM cluster: the same tables as without it, and every job where it belongs."""

import collections

import pytest

pytestmark = pytest.mark.slow

CPU = {"digits_target", "digits_web", "split_target", "index_pool", "retrieve", "audit", "hash_images"}
CPU |= {"study_page", "report_page"}
LARGE = {"finetune"}
SMALL = {"train_clip", "train_vae", "train_unet", "train_safety_checker", "embed_pool", "encode_latents", "generate"}
SMALL |= {"classify", "screen", "judge", "domain_gap"}


def test_the_tables_are_those_of_a_local_run(remote, local):
    assert len(local.digests("tables/*.csv")) == 8
    assert remote.digests("tables/*.csv") == local.digests("tables/*.csv")
    made = [f"images/{method}/**/*.tar" for method in ("clip_prompts", "pseudoword_dm")]
    assert len(remote.digests(*made)) == 4
    assert remote.digests(*made) == local.digests(*made)


def test_every_script_ran_once_where_it_belongs(remote):
    """Light rules (dataset, resample, select, summary, tables) are not among them: they need no place in the queue."""
    seen, scripts = collections.defaultdict(set), collections.Counter()
    for job, script, devices in remote.ran:
        record = remote.jobs[job]
        seen[script].add((record["Partition"], record.get("TresPerJob", ""), devices))
        scripts[job] += 1
    print("\n" + "\n".join(f"{script}: {sorted(places)}" for script, places in sorted(seen.items())))
    assert set(scripts.values()) == {1}
    assert seen.keys() == CPU | SMALL | LARGE
    assert all(seen[script] == {("cpu", "", "")} for script in CPU)
    for scripts, partition, gpus in ((LARGE, "v100", 2), (SMALL, "t4", 1)):
        for script in scripts:
            assert {place[:2] for place in seen[script]} == {(partition, f"gres:gpu:{partition}:{gpus}")}
            assert {len(devices.split(",")) for _, _, devices in seen[script]} == {gpus}


def test_generation_is_submitted_in_arrays(remote):
    jobs = {job for job, script, _ in remote.ran if script == "generate"}
    parents = {remote.jobs[job].get("ArrayJobId", job) for job in jobs}
    print(f"{len(jobs)} generation jobs in {len(parents)} calls of sbatch")
    assert len(jobs) == 6
    assert len(parents) <= 3  # of the prompts, later to compare fine-tuned models, and of the chosen one
