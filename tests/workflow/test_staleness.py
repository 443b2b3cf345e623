"""Edits re-run what depends on them, and nothing else."""

import contextlib

ADDING = {"more_real", "boomerang", "clip_prompts", "cluster_dm", "retrieval"}
GENERATING = {"boomerang", "clip_prompts", "cluster_dm"}
AFTER_AUDIT = {("tables", ""), ("study_page", ""), ("report_page", "")}


@contextlib.contextmanager
def edited(clone, **changes):
    """Edit files of the clone, path -> function of their text, for as long as the block lasts."""
    before = {name: (clone.folder / name).read_text() for name in changes}
    try:
        for name, change in changes.items():
            assert change(before[name]) != before[name]
            (clone.folder / name).write_text(change(before[name]))
        yield
    finally:
        for name, text in before.items():
            (clone.folder / name).write_text(text)


def appended(text):
    return text + "\n# an edit\n"


def jobs(rules, methods):
    return {(rule, method) for rule in rules.split() for method in methods}


def rules(planned):
    return {rule for rule, _ in planned}


def methods(planned):
    return {method for _, method in planned} - {""}


def test_an_edited_audit_and_an_edited_template_rerun_what_they_reach(built):
    """Together in one plan: the audit of all methods, and everything of the one method that has the template."""
    fax = {"src/augbench/resources/templates/clip_prompts.txt": lambda text: text + "a fax of a {w}.\n"}
    with edited(built, **{"src/augbench/audit/duplicates.py": appended}, **fax):
        planned = built.planned()
    audited = jobs("audit review", ADDING) | jobs("summary", ADDING) | AFTER_AUDIT
    of_template = jobs("generate resample classify hash_added audit review summary", {"clip_prompts"})
    assert planned == audited | of_template | {("domain_gap", ""), ("per_class", "")}


def test_an_edited_sampler_reruns_generation_and_after_but_no_training(built):
    with edited(built, **{"src/augbench/diffusion/sampling.py": appended}):
        planned = built.planned()
    assert methods(planned) == GENERATING
    assert rules(planned) == {
        "generate", "generate_screened", "screen", "select", "resample", "classify", "hash_added", "audit", "review",
        "domain_gap", "summary", "tables", "per_class", "study_page", "report_page",
    }  # fmt: skip


def test_an_edited_fine_tuner_reruns_fine_tuning_and_what_follows_of_that_method_only(built):
    with edited(built, **{"src/augbench/diffusion/finetuning.py": appended}):
        planned = built.planned()
    assert jobs("finetune generate_screened screen select generate", {"cluster_dm"}) <= planned
    assert methods(planned) == {"cluster_dm"}
    assert not rules(planned) & {"train_unet", "encode_latents", "cluster", "retrieve"}


def test_an_edited_clip_training_reruns_its_training(built):
    with edited(built, **{"src/augbench/models/train_clip.py": appended}):
        assert {"train_clip", "embed_pool", "retrieve"} <= rules(built.planned())


def test_a_changed_row_of_the_method_table_reruns_that_method_only(built):
    def other_templates(text):
        start = text.index("clip_prompts:\n")
        return text[:start] + text[start:].replace("conditioning: clip_prompts", "conditioning: simple_prompt", 1)

    with edited(built, **{"config/methods.yaml": other_templates}):
        assert methods(built.planned()) == {"clip_prompts"}


def test_a_part_of_a_study_builds_nothing_of_other_methods(clone):
    planned = clone().planned("results/small/summary/clip_prompts.json")
    # Retrieval is among them: the classes that it cannot fill are excluded for every method.
    assert ("retrieve", "retrieval") in planned
    assert methods(planned - {("retrieve", "retrieval")}) == {"clip_prompts"}


def test_a_deleted_shard_is_made_again_with_what_follows_and_then_nothing_is_left_to_do(built):
    before = built.digests("tables/*.csv", "images/**/*.tar")
    (built.folder / "results/small/images/clip_prompts/base/shard-0.tar").unlink()
    planned = built.planned("all")
    assert jobs("generate", GENERATING) & planned == {("generate", "clip_prompts")}
    assert not any(rule.startswith("train_") for rule in rules(planned))
    code, output = built.snakemake("--cores", "2")
    assert code == 0, output
    assert built.digests("tables/*.csv", "images/**/*.tar") == before
    assert built.planned() == set()
