"""What jobs need follows from their work: more images, candidates, steps or fewer jobs take longer."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from augbench.jobs import checks, job_costs
from augbench.jobs.job_costs import JobCosts
from augbench.jobs.report_files import measured_jobs
from augbench.jobs.study_files import StudyFiles
from augbench.jobs.study_size import StudySize
from augbench.models import families
from augbench.study import config

ROWS = yaml.safe_load(Path("config/methods.yaml").read_text())
TUNED = "ft_conditioning"  # with five candidates
METHODS = ["none", "more_real", "boomerang", "clip_prompts", TUNED, "retrieval"]
IMAGES = {"train": 30, "validation": 10, "test": 100, "more_real": 25, "unused": 500}


@pytest.fixture(autouse=True)
def two_classes(monkeypatch):
    """A study of two classes, of 10 and 20 training images."""
    monkeypatch.setattr(job_costs, "study_size", lambda files: StudySize((10, 20), IMAGES))


def costs(**sections) -> JobCosts:
    study = {"methods": METHODS, "target": {"reader": "digits"}}
    study |= {"clip": {"model": "ViT-B/32"}, "backbone": {"model": "owner/name"}, "pool": {"source": "digits"}}
    return JobCosts(StudyFiles(config.parse(ROWS | {"studies": {"s": study | sections}}), "s"))


def test_images_of_a_job_by_what_they_are_for():
    one = costs(generate={"times": 3}, scaling={"methods": ["clip_prompts"], "ratios": [5]})
    assert one.to_generate("clip_prompts", "base") == 3 * 30
    assert one.to_generate("clip_prompts", "further") == (5 - 3) * 30
    assert one.to_generate(TUNED, "screen") == 5 * 30
    assert one.to_generate(TUNED, "selected") == (3 - 1) * 30  # the first third exists, made to compare candidates
    several = costs(generate={"times": 3}, jobs={"classes_per_generation": 2})
    assert several.to_generate("clip_prompts", "base") == 3 * 30 / 5  # ten digits, two in each job


def test_a_scan_takes_longer_for_more_embeddings_and_reads_none(tmp_path):
    def seconds(rows):
        np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float16, (rows, 512))
        pq.write_table(pa.table({"url": pa.nulls(rows, pa.string())}), tmp_path / "a.parquet")
        return costs(pool={"source": "embeddings", "path": str(tmp_path)}).retrieve("retrieval").seconds

    # Of two classes: to read a row takes 10 microseconds, to compare it 0.1 with each.
    assert seconds(1_000_000) - seconds(500_000) == pytest.approx(500_000 * (10e-6 + 2 * 0.1e-6))


def test_sets_are_drawn_from_what_there_is():
    one = costs(retrieval={"images_per_class": 15}, scaling={"methods": ["retrieval"], "ratios": [2]}, runs=5)
    assert [one.added(method, 1) for method in METHODS] == [0, 25, 30, 30, 30, 30]
    assert one.retrieved(2) == 2 * 15 + 2 * 20
    assert one.distinct("retrieval", ["1", "2"]) == one.retrieved(2)  # of five times 30 and 60 that are drawn
    assert one.distinct("clip_prompts", ["1"]) == 3 * 30
    assert one.distinct("more_real", ["1"]) == 25


def test_only_what_classes_lack_is_made_where_they_are_topped_up(monkeypatch):
    """Of 10 and 20 training images, 10 are missing."""
    monkeypatch.setattr(job_costs, "study_size", lambda files: StudySize((10, 20), IMAGES, (10, 0)))
    one = costs(dataset={"fill_to": "largest"}, generate={"times": 3})
    assert [one.added(method, 1) for method in METHODS] == [0, 10, 10, 10, 10, 10]
    assert (one.retrieved(1), one.to_generate("clip_prompts", "base")) == (10, 30)
    assert one.compared(TUNED) == 5 * 10
    assert one.files.order("more_real") == "available" and one.files.order("retrieval") == "listed"
    assert costs().files.order("more_real") == "all"


def test_a_training_takes_its_processes_cores_and_shares_its_work():
    one, four = costs(), costs(classifier={"processes": 4, "threads": 2, "workers": 3}, finetune={"processes": 2})
    assert (four.classifier_cores, four.finetuning_cores) == (4 * (2 + 3), 2)
    assert one.classifier_cores == 1 + 4  # that read ahead what does not fit into memory
    assert costs(classifier={"image_size": 32}).classifier_cores == 1
    assert four.classify(TUNED, "1", 1).seconds == pytest.approx(one.classify(TUNED, "1", 1).seconds / 4)
    assert four.finetune(TUNED, "1").seconds == pytest.approx(one.finetune(TUNED, "1").seconds / 2)
    assert (four.classify(TUNED, "1", 1).gpus, four.finetune(TUNED, "1").gpus) == (4, 2)


def test_processes_map_the_same_latents(monkeypatch):
    images = IMAGES | {"train": 200_000}
    monkeypatch.setattr(job_costs, "study_size", lambda files: StudySize((200_000,), images))
    one, two = (costs(finetune={"processes": n}).finetune(TUNED, "1").megabytes for n in (1, 2))
    assert two - one == families.DEFAULT.megabytes
    assert one > families.DEFAULT.megabytes + 200_000 * 65_000 / 1e6  # half precision, 64 x 64 x 8 numbers each


def test_latents_are_as_large_as_they_are_stored():
    """Mean and variance of four channels, float32: of Stable Diffusion's an eighth of a side, of a small one's a
    quarter."""
    images = 30 + 10
    assert costs().encode_latents().writes == images * (2 * 4 * 64 * 64) * 4
    digits = yaml.safe_load(Path("config/config.yaml").read_text())["studies"]["digits"]
    small = costs(**{name: digits[name] for name in ("clip", "backbone")}, generate={"image_size": 32})
    assert small.encode_latents().writes == images * (2 * 4 * 8 * 8) * 4


def test_a_classifiers_weights_are_as_large_as_torchvision_says():
    bytes = costs(classifier={"model": "resnet50"}).classify("none", "0", 1).writes
    assert bytes == pytest.approx(4 * 25.56e6, rel=0.01)
    assert costs(classifier={"model": "small_cnn"}).classify("none", "0", 1).writes < 1e6


def test_a_classifier_is_trained_on_what_a_method_adds():
    one = costs(ratios=[1, 2])
    alone = one.classify("none", "0", 1).seconds
    assert one.classify("clip_prompts", "1", 1).seconds == pytest.approx(2 * alone)
    assert one.classify("clip_prompts", "2", 5).seconds == pytest.approx(5 * 3 * alone)
    assert one.classify("more_real", "1", 1).seconds == pytest.approx(alone * 55 / 30)


def test_a_classifier_of_a_budget_of_steps_takes_as_long_whatever_is_added():
    steps = {"budget": "steps", "steps": 300, "batch_size": 10}
    one = costs(classifier=steps, ratios=[1, 2])
    alone = one.classify("none", "0", 1).seconds
    assert one.classify("clip_prompts", "2", 1).seconds == pytest.approx(alone)
    assert alone == pytest.approx(costs().classify("none", "0", 1).seconds)  # 100 epochs of 30 images
    assert one.judge().seconds == pytest.approx(alone)
    small = costs(classifier=steps | {"batch_size": 50}).classify("none", "0", 1).seconds
    assert small == pytest.approx(3 * alone)  # batches of all 30 images


def test_an_epoch_in_which_added_images_stand_in_is_that_of_the_target_alone():
    mixed = {"mixed": ROWS["methods"]["clip_prompts"] | {"mix": {"probability": 0.5}}}
    study = {"methods": ["none", "mixed"], "target": {"reader": "digits"}, "backbone": {"model": "owner/name"}}
    rows = {"methods": ROWS["methods"] | mixed}
    one = JobCosts(StudyFiles(config.parse(rows | {"studies": {"s": study}}), "s"))
    assert one.classify("mixed", "1", 1).seconds == one.classify("none", "0", 1).seconds


def test_a_screening_trains_a_classifier_for_each_of_its_candidates():
    all_in_one, single = costs(), costs(jobs={"candidates_per_screening": 1})
    assert all_in_one.screen(TUNED, "0").seconds == pytest.approx(5 * single.screen(TUNED, "0").seconds)
    assert single.screen(TUNED, "0").seconds == pytest.approx(single.classify("clip_prompts", "1", 1).seconds)


def test_a_start_image_spares_steps_and_an_empty_prompt_half_of_each():
    one = costs(generate={"steps": 50, "noise_share": 0.2})
    from_noise, from_image = (one.generate(method, "base", "0").seconds for method in ("clip_prompts", "boomerang"))
    assert from_image == pytest.approx(from_noise * 10 / 50 / 2)


def test_a_fine_tuning_that_names_its_epochs_goes_no_further():
    rows = ROWS | {"methods": ROWS["methods"] | {"short": ROWS["methods"][TUNED] | {"candidates": ["epoch-2"]}}}
    study = {"methods": ["short", TUNED], "target": {"reader": "digits"}, "backbone": {"model": "owner/name"}}
    one = JobCosts(StudyFiles(config.parse(rows | {"studies": {"s": study}}), "s"))
    assert one.finetune("short", "1").seconds == pytest.approx(one.finetune(TUNED, "1").seconds * 2 / 40)


def test_screened_images_go_and_the_others_stay():
    one = costs()
    screened, selected = (one.generate(TUNED, purpose, "0") for purpose in ("screen", "selected"))
    assert screened.writes == 0 and screened.drops == pytest.approx(150 / 90 * selected.writes)
    small = costs(generate={"format": "jpeg", "quality": 90}).generate(TUNED, "selected", "0").writes
    assert small < selected.writes / 4


def test_retrieval_takes_the_longer_of_downloads_and_judging():
    index = {"pool": {"source": "service", "url": "http://x/y", "index": "i"}}
    slow, fast = (costs(**index, retrieval={"threads": n}).retrieve("retrieval") for n in (1, 64))
    assert slow.seconds == pytest.approx(1.4 * 30 * 2.0)
    assert fast.seconds == pytest.approx(30 * 28.5 * 3600 / 130_000)
    card = costs(**index, retrieval={"gpu": True}).retrieve("retrieval")
    assert (slow.gpus, card.gpus) == (0, 1) and card.seconds == pytest.approx(fast.seconds)
    scored = costs(**index, retrieval={"aesthetic_model": "head.pth"}).retrieve("retrieval")
    assert scored.seconds == pytest.approx(2 * slow.seconds)


def test_work_that_takes_all_cores_takes_one_where_the_study_is_small(monkeypatch):
    assert (costs().cores, costs(jobs={"classes_per_generation": 1}).cores) == (1, 2)
    assert costs().target_cores == 1
    monkeypatch.setattr(job_costs, "study_size", lambda files: StudySize((1,), IMAGES | {"unused": 10**6}))
    assert costs().target_cores == 8


def test_what_only_a_union_takes_is_made_once_and_not_compared():
    union = {"title": "U", "family": "union", "start": "methods", "of": {"retrieval": 0.5, "clip_prompts": 0.5}}
    rules = {}
    for methods in (["none", "u"], ["none", "u", "retrieval", "clip_prompts"]):
        study = {"methods": methods, "target": {"reader": "digits"}, "runs": 4, "clip": {"model": "ViT-B/32"}}
        study |= {"backbone": {"model": "owner/name"}, "pool": {"source": "digits"}}
        rows = {"methods": ROWS["methods"] | {"u": union}, "studies": {"s": study}}
        files = StudyFiles(config.parse(rows), "s")
        rules[len(methods)] = [rule for rule, _ in JobCosts(files).jobs()]
        benchmarks = [
            job[:1] + job[2:3] for job in measured_jobs(files) if job[1] in ("resample", "generate", "retrieve")
        ]
        assert len(set(benchmarks)) == len(benchmarks) == 2 + 1 + 1 + 1
    made = ("retrieve", "generate", "resample", "unite")
    for names in rules.values():
        assert [names.count(name) for name in made] == [1, 1, 2, 1]
    assert [rules[2].count(name) for name in ("classify", "audit", "summary")] == [2, 1, 2]
    assert [rules[4].count(name) for name in ("classify", "audit", "summary")] == [4, 3, 4]


def test_an_index_takes_twice_its_memory_while_it_is_built():
    assert costs(pool={"source": "digits", "memory": "4G"}).index_pool().megabytes == 2000 + 8000
    assert costs(pool={"source": "digits", "memory": "500M"}).index_pool().megabytes == 2000 + 1000


def test_captions_are_indexed_once_where_methods_match_them():
    rules = [rule for rule, _ in costs(methods=["none", "retrieval_captions", "retrieval_captions_and_clip"]).jobs()]
    assert (rules.count("index_captions"), rules.count("retrieve")) == (1, 2)
    assert "index_captions" not in [rule for rule, _ in costs().jobs()]


def test_each_job_of_a_study_is_counted():
    study = costs(
        runs=4,
        finetune={"grid": [0.5, 1]},
        jobs={"classes_per_generation": 5, "runs_per_classifier": 2, "candidates_per_screening": 3},
        scaling={"methods": ["retrieval", "clip_prompts"], "ratios": [2, 5]},
        audit={"detector": "clip"},
    )
    rules = [rule for rule, _ in study.jobs()]
    counts = {rule: rules.count(rule) for rule in rules}
    assert counts["generate"] == (3 + 1) * 2 and counts["generate_screened"] == 2
    assert (counts["finetune"], counts["screen"], counts["select"]) == (2, 2, 1)
    assert counts["classify"] == (6 + 2 * 2) * 2
    assert (counts["retrieve"], counts["retrieve_further"], counts["resample"]) == (1, 1, 5 + 2 * 2)
    assert counts["hash_added"] == counts["embed_added"] == counts["audit"] == 5
    assert counts["hash_references"] == counts["embed_references"] == 4
    assert (counts["encode_latents"], counts["fetch_backbone"], counts["embed_pool"], counts["index_pool"]) == (1,) * 4


def test_scores_and_filters_cost_only_where_a_study_asks_for_them():
    kinds = {rule for rule, _ in costs().jobs()}
    one = costs(drop_leaks=True, scaling={"methods": ["retrieval"], "ratios": [2]})
    jobs = list(one.jobs())
    added = [rule for rule, _ in jobs if rule in ("score", "filter_images")]
    assert {rule for rule, _ in jobs} - kinds == {"score", "filter_images", "embed_references", "retrieve_further"}
    assert added.count("score") == added.count("filter_images") == len(METHODS) - 1 + 1
    assert one.score("retrieval", "main").seconds == pytest.approx(one.score("retrieval", "further").seconds)
    assert costs(drop_leaks=True, generate={"times": 6}).score("clip_prompts", "main").seconds == pytest.approx(
        2 * costs(drop_leaks=True).score("clip_prompts", "main").seconds
    )
    assert one.score("clip_prompts", "main").gpus == 1 and one.hash_references("train").seconds > 0


@pytest.mark.parametrize(
    ("name", "keep", "sections", "message"),
    [
        ("retrieval", 0.5, {}, "keeps 5 of the 10 images .* 10 are added .* a higher `retrieval: {images_per_class"),
        ("retrieval", 0.5, {"retrieval": {"images_per_class": 40}}, None),
        ("clip_prompts", 0.3, {"generate": {"times": 3}}, r"keeps 9 of the 30 .* a higher `generate: {times: ...}`"),
        ("clip_prompts", 0.34, {"generate": {"times": 3}}, None),
        ("more_real", 0.1, {}, None),
    ],
)
def test_a_filter_that_keeps_too_few_images_is_named_before_any_work(monkeypatch, name, keep, sections, message):
    """Of a class of ten training images ten are added."""
    monkeypatch.setattr(job_costs, "study_size", lambda files: StudySize((10,), IMAGES))
    row = ROWS["methods"][name] | {"filter": {"by": "clip", "keep": keep}}
    study = {"methods": ["none", "mine"], "target": {"reader": "digits"}, "clip": {"model": "ViT-B/32"}}
    study |= {"backbone": {"model": "owner/name"}, "pool": {"source": "digits"}} | sections

    def check(row):
        raw = {"methods": ROWS["methods"] | {"mine": row}, "studies": {"s": study}}
        checks.check_filters({"s": JobCosts(StudyFiles(config.parse(raw), "s"))})

    check(row | {"filter": row["filter"] | {"allow_fewer": True}})
    if message is None:
        return check(row)
    with pytest.raises(config.ConfigError, match=r"studies.s.methods: the filter of mine " + message):
        check(row)


def test_further_classifiers_and_features_are_jobs_of_their_own():
    probe = {"model": "timm/x", "weights": "pretrained", "train": "probe"}
    one = costs(classifiers={"probe": probe, "scratch": {}}, runs=4, jobs={"runs_per_classifier": 2})
    rules = [rule for rule, _ in one.jobs()]
    assert rules.count("classify_further") == 2 * len(METHODS) * 2
    assert rules.count("encode_features") == len(METHODS)  # the splits, and what each but the target alone adds
    assert rules.count("classifiers") == 1 and "classifiers" not in [rule for rule, _ in costs().jobs()]
    probing, scratch = (one.classify(TUNED, "1", 50, name) for name in ("probe", "scratch"))
    assert probing.seconds < scratch.seconds and probing.writes < scratch.writes
    assert scratch == one.classify(TUNED, "1", 50)
    measured = [job for job in measured_jobs(one.files) if job[1] in ("classifiers", "features")]
    assert len(measured) == rules.count("classify_further") + rules.count("encode_features")
    assert ("results/s/benchmarks/features/probe/retrieval/x1.tsv", "features", "", "") in measured


def test_clip_is_scored_once_where_a_study_asks_for_it(monkeypatch):
    one = costs(zero_shot=True)
    rules = [rule for rule, _ in one.jobs()]
    assert rules.count("zero_shot") == 1 and "zero_shot" not in [rule for rule, _ in costs().jobs()]
    assert {job[0] for job in measured_jobs(one.files)} - {job[0] for job in measured_jobs(costs().files)} == {
        "results/s/benchmarks/zero_shot/test.tsv"
    }
    need = one.zero_shot()
    assert need.gpus == 1 and need.seconds > 0
    monkeypatch.setattr(job_costs, "study_size", lambda files: StudySize((10, 20), IMAGES | {"test": 200}))
    assert costs(zero_shot=True).zero_shot().seconds == pytest.approx(2 * need.seconds)


def test_what_draws_of_a_target_share_is_counted_once(tmp_path):
    for key in "ab":
        (tmp_path / key).mkdir()
        (tmp_path / key / "1.png").touch()
    study = {"methods": METHODS, "target": {"reader": "folder", "path": str(tmp_path)}, "subsamples": 2}
    study |= {"clip": {"model": "ViT-B/32"}, "backbone": {"model": "owner/name"}}
    study |= {"pool": {"source": "index", "path": "data"}}
    drawn = config.with_draws(config.parse(ROWS | {"studies": {"s": study}}))
    first, second = ({rule for rule, _ in JobCosts(StudyFiles(drawn, name)).jobs()} for name in ("s", "s-2"))
    assert first - second == {"fetch_backbone", "subsamples"} and second < first
