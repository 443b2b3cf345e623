"""One training on more than one node."""

import shutil

import pytest

pytestmark = pytest.mark.slow


def test_a_fine_tuning_over_two_nodes_ends_with_the_same_bytes(remote, cluster):
    """As the profile's comment says, with one GPU of each node for one of the two processes."""
    profile, folder = remote.folder / "slurm/config.yaml", remote.folder / "results/small/finetune/pseudoword_dm"
    before, text, known = remote.digests("finetune/**/*"), profile.read_text(), set(cluster.look())
    line = next(line for line in text.splitlines() if line.startswith("  finetune:"))
    two = (
        next(line for line in text.splitlines() if line.startswith("  # finetune:"))
        .replace("# ", "")
        .replace(":8", ":1")
    )
    profile.write_text(text.replace(line, two))
    shutil.rmtree(folder)
    remote.submit("results/small/finetune/pseudoword_dm/lr-1")
    profile.write_text(text)
    assert remote.digests("finetune/**/*") == before
    (job,) = (record for number, record in cluster.look().items() if number not in known)
    print(job["NodeList"], job["NumNodes"], job.get("TresPerNode"), job.get("TresPerJob"))
    assert job["NodeList"] == "v100,v100b"
