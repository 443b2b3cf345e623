"""Edits re-run what depends on them, and nothing else."""

import contextlib
import re

import pytest

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def edited(clone, name, change):
    """Edit a file of the clone for as long as the block lasts."""
    path = clone.folder / name
    before = path.read_text()
    assert change(before) != before
    path.write_text(change(before))
    try:
        yield
    finally:
        path.write_text(before)


def appended(text):
    return text + "\n# an edit\n"


def test_nothing_touched_nothing_runs(built):
    assert built.planned() == set()


def test_edited_audit_reruns_audit_and_report_only(built):
    with edited(built, "src/augbench/audit.py", appended):
        assert built.planned() == {"audit", "review", "summary", "tables", "report_page"}


def test_edited_sampler_reruns_generation_and_after_but_no_training(built):
    with edited(built, "src/augbench/sampling.py", appended):
        planned = built.planned()
    assert planned == {
        "generate", "screen", "select", "resample", "classify", "hash_added", "audit", "review", "domain_gap",
        "summary", "tables", "per_class", "report_page",
    }  # fmt: skip


def test_edited_fine_tuner_reruns_fine_tuning_and_what_follows_of_these_methods_only(built):
    with edited(built, "src/augbench/finetuning.py", appended):
        planned = built.planned()
        _, output = built.snakemake("-n", "results/report.html")
    assert {"finetune", "screen", "select", "generate"} <= planned
    assert not planned & {"train_unet", "encode_latents", "cluster", "retrieve"}
    jobs = [line.strip() for line in output.splitlines() if line.strip().startswith("wildcards:")]
    methods = {part.split("=")[1] for line in jobs for part in line.split(", ") if part.startswith("method=")}
    assert methods == {"ft_cluster_conditioning_k5", "pseudoword_dm"}


def test_edited_clip_training_reruns_its_training(built):
    with edited(built, "src/augbench/clip_training.py", appended):
        assert {"train_clip", "embed_pool", "retrieve"} <= built.planned()


def test_a_methods_change_reruns_that_method_only(built):
    def other_templates(text):
        start = text.index("clip_prompts:\n")
        return text[:start] + text[start:].replace("conditioning: clip_prompts", "conditioning: simple_prompt", 1)

    with edited(built, "config/methods.yaml", other_templates):
        _, output = built.snakemake("-n", "results/report.html")
    jobs = [line.strip() for line in output.splitlines() if line.strip().startswith("wildcards:")]
    methods = {part.split("=")[1] for line in jobs for part in line.split(", ") if part.startswith("method=")}
    assert methods == {"clip_prompts"}


def test_an_edited_template_reruns_its_methods_only(built):
    with edited(built, "resources/templates/clip_prompts.txt", lambda text: text + "a fax of a {w}.\n"):
        _, output = built.snakemake("-n", "results/report.html")
    jobs = [line.strip() for line in output.splitlines() if line.strip().startswith("wildcards:")]
    methods = {part.split("=")[1] for line in jobs for part in line.split(", ") if part.startswith("method=")}
    assert methods == {"clip_prompts"}


def test_partial_target_builds_nothing_of_other_methods(clone):
    fresh = clone()
    code, output = fresh.snakemake("-n", "results/small/summary/clip_prompts.json")
    assert code == 0, output
    blocks = re.split(r"^rule (\w+):", output, flags=re.MULTILINE)
    jobs = {
        (rule, found[1])
        for rule, text in zip(blocks[1::2], blocks[2::2], strict=True)
        if (found := re.search(r"method=(\w+)", text))
    }
    # Retrieval is among them: the classes that it cannot fill are excluded for every method.
    assert ("retrieve", "retrieval") in jobs
    assert {method for rule, method in jobs if rule != "retrieve"} == {"clip_prompts"}


def test_deleted_shard_reruns_that_shard_and_what_follows(built):
    before = built.digests("tables/*.csv", "images/**/*.tar")
    (built.folder / "results/small/images/clip_prompts/base/shard-1.tar").unlink()
    _, output = built.snakemake("-n")
    assert output.count("rule generate:") == 1
    assert "rule train_" not in output
    code, output = built.snakemake("--cores", "2")
    assert code == 0, output
    assert built.digests("tables/*.csv", "images/**/*.tar") == before
    assert built.planned() == set()
