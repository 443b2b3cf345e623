"""A study's files: which of them each kind of method has, and where."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from augbench.jobs.paths import Paths
from augbench.jobs.report_files import report_files
from augbench.jobs.study_files import StudyFiles
from augbench.study import config

ROWS = yaml.safe_load(Path("config/methods.yaml").read_text())
METHODS = ["none", "more_real", "boomerang", "clip_prompts", "ft_cluster_conditioning_k5", "retrieval"]
S = "results/s"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory with a target of four classes."""
    for key in "abcd":
        (tmp_path / "data" / key).mkdir(parents=True)
        (tmp_path / "data" / key / "1.png").touch()
    monkeypatch.chdir(tmp_path)


def files(**sections) -> StudyFiles:
    study = {"methods": METHODS, "target": {"reader": "folder", "path": "data"}, "runs": 3}
    study |= {"clip": {"model": "ViT-B/32"}, "backbone": {"model": "owner/name"}, "pool": {"source": "digits"}}
    return StudyFiles(config.parse(ROWS | {"studies": {"s": study | sections}}), "s")


def test_methods_by_where_their_images_come_from():
    study = files()
    assert study.adding == METHODS[1:]
    assert study.generating == ["boomerang", "clip_prompts", "ft_cluster_conditioning_k5"]
    assert study.retrieving == ["retrieval"]
    assert study.cluster_counts == [5]
    assert study.clusters_of("ft_cluster_conditioning_k5") == f"{S}/finetune/clusters.parquet"
    assert study.clusters_of("clip_prompts") == []


def test_images_of_each_kind_of_method():
    study = files(jobs={"classes_per_generation": 2})
    assert study.image_tables("more_real", "1") == [f"{S}/dataset/more_real.parquet"]
    assert study.image_tables("retrieval", "1") == [f"{S}/retrieval/retrieval/images.parquet"]
    folder = f"{S}/images/boomerang/base"
    assert study.image_tables("boomerang", "1") == [f"{folder}/shard-0.parquet", f"{folder}/shard-1.parquet"]
    folder = f"{S}/images/ft_cluster_conditioning_k5"
    assert study.generated("ft_cluster_conditioning_k5", "tar") == [
        f"{folder}/selected/shard-{part}.tar" for part in (0, 1)
    ]
    assert study.screened("ft_cluster_conditioning_k5", "1") == [
        f"{folder}/screen/shard-1.{extension}" for extension in ("tar", "parquet")
    ]
    assert len(study.stored_shards) == 2 + 2 + 2 + 1
    assert study.image_tables("none", "0") == []


def test_generation_is_cut_by_classes():
    assert [files(jobs={"classes_per_generation": n}).generation_jobs for n in (1, 3, 4, 100)] == [4, 2, 1, 1]


def test_further_ratios_have_images_of_their_own_where_the_main_ones_do_not_suffice():
    study = files(scaling={"methods": ["retrieval", "clip_prompts"], "ratios": [2, 5]})
    assert study.ratios("retrieval") == ["1", "2", "5"]
    assert study.ratios("none") == ["0"] and study.ratios("more_real") == study.ratios("boomerang") == ["1"]
    assert (study.further_ratio("retrieval"), study.further_ratio("clip_prompts")) == (5, 5)
    assert study.further_ratio("boomerang") is None and study.further_ratio("none") is None
    further = f"{S}/retrieval/retrieval/further/images.parquet"
    assert study.image_tables("retrieval", "5") == [f"{S}/retrieval/retrieval/images.parquet", further]
    assert study.image_tables("retrieval", "1") == [f"{S}/retrieval/retrieval/images.parquet"]
    assert f"{S}/images/clip_prompts/further/shard-0.tar" in study.stored_shards
    enough = files(scaling={"methods": ["clip_prompts"], "ratios": [3]})  # three times as many are generated anyhow
    assert enough.further("clip_prompts", "tar") == []


def test_a_fine_tuning_has_a_folder_for_each_learning_rate_and_others_none():
    study = files(finetune={"grid": [0.5, 1, 1e-5]}, jobs={"candidates_per_screening": 4})
    folder = f"{S}/finetune/ft_cluster_conditioning_k5"
    assert study.finetunings("ft_cluster_conditioning_k5") == [f"{folder}/lr-{rate}" for rate in ("0.5", "1", "1e-05")]
    assert study.finetunings("clip_prompts") == []
    assert study.screenings("ft_cluster_conditioning_k5") == [
        f"{S}/selection/ft_cluster_conditioning_k5/part-{part}.json" for part in (0, 1)
    ]


def test_classifiers_of_a_method():
    study = files(runs=5, jobs={"runs_per_classifier": 2}, ratios=[1, 2])
    assert study.stretches == [(1, 2), (3, 4), (5, 5)]
    assert len(study.metrics("boomerang")) == 10 and len(study.metrics("none")) == 5
    assert len(study.predictions) == 5 * len(METHODS)
    assert study.predictions[0] == f"{S}/classifier/none/x0/run-1/predictions.parquet"
    assert study.added_sets("boomerang")[5] == f"{S}/augmentation/boomerang/x2/split-1.parquet"
    assert len(study.main_added_sets) == 5 * len(study.adding)


def test_references_are_all_splits_but_the_methods_own_and_folders():
    study = files(audit={"references": {"web": "data"}})
    assert study.reference_names("boomerang") == ["test", "validation", "more_real", "unused", "web"]
    assert study.reference_tables("more_real") == [
        *(f"{S}/dataset/{split}.parquet" for split in ("test", "validation", "unused")),
        f"{S}/audit/references/web.parquet",
    ]
    assert study.reference_hashes("more_real")[-1] == f"{S}/audit/hashes/web.parquet"
    assert study.reference_vectors("more_real") == []
    assert len(files(audit={"detector": "clip"}).reference_vectors("more_real")) == 3


def test_further_test_sets_are_scored_and_compared_with():
    study = files(evaluate={"sketch": {"path": "data"}, "v2": {"path": "data", "classes": "position"}}, runs=2)
    assert len(study.evaluations) == 2 * 2 * len(METHODS)
    assert study.evaluations[0] == f"{S}/evaluation/sketch/none/x0/run-1.parquet"
    assert study.evaluations[-1] == f"{S}/evaluation/v2/retrieval/x1/run-2.parquet"
    assert study.reference_names("more_real")[-2:] == ["sketch", "v2"]
    assert study.reference_tables("more_real")[-1] == f"{S}/evaluation/v2/images.parquet"
    assert files().evaluations == []
    with pytest.raises(config.ConfigError, match="evaluate: web is a split of the target, or named in `audit`"):
        files(evaluate={"web": {"path": "data"}}, audit={"references": {"web": "data"}})
    with pytest.raises(config.ConfigError, match="digits is made by a study; a test set has `reader: folder`"):
        files(evaluate={"web": {"reader": "digits", "path": "data"}})


def test_each_draw_of_a_target_is_a_study_of_another_seed():
    study = {
        "methods": ["none", "more_real"],
        "target": {"reader": "folder", "path": "data"},
        "subsamples": 3,
        "seed": 4,
    }
    plain = config.parse(ROWS | {"studies": {"s": study, "t": study | {"subsamples": 1}}})
    drawn = config.with_draws(plain)
    assert list(drawn.studies) == ["s", "s-2", "s-3", "t"]
    assert len({drawn.studies[name].seed for name in ("s", "s-2", "s-3")}) == 3
    assert drawn.studies["s"] == plain.studies["s"] and drawn.studies["s-2"].subsamples == 1
    assert StudyFiles(drawn, "s").draw_summaries == [
        f"results/{name}/summary/{method}.json" for method in ("none", "more_real") for name in ("s", "s-2", "s-3")
    ]
    assert report_files(StudyFiles(drawn, "s"))["subsamples"] == f"{S}/tables/subsamples.csv"
    assert report_files(StudyFiles(drawn, "s-2"))["subsamples"] is None


def test_draws_share_models_and_the_pool_but_not_a_web_that_is_made_for_their_test_images():
    study = {"methods": METHODS, "target": {"reader": "folder", "path": "data"}, "subsamples": 2}
    study |= {"clip": {"model": "ViT-B/32"}, "backbone": {"model": "owner/name"}}
    study |= {"pool": {"source": "folder", "path": "data"}, "backbones": {"xl": {"model": "owner/xl"}}}
    made = study | {"target": {"reader": "digits"}, "pool": {"source": "digits"}}
    drawn = config.with_draws(config.parse(ROWS | {"studies": {"s": study, "made": made}}))
    second, first = StudyFiles(drawn, "s-2"), StudyFiles(drawn, "s")
    assert second.index == first.index == [f"{S}/pool/index"] and second.pool_shards == first.pool_shards
    assert second.backbone_of("clip_prompts") == f"{S}/backbone" and second.safety == f"{S}/backbone"
    assert second.backbone_folder("xl") == f"{S}/backbones/xl"
    assert second.latents("train") == f"{S}-2/latents/train.safetensors"
    assert second.retrieved("retrieval", "tar") == f"{S}-2/retrieval/retrieval/images.tar"
    assert StudyFiles(drawn, "made-2").index == ["results/made-2/pool/index"]


def test_the_judge_learns_from_what_no_method_adds():
    assert files().reserve == [f"{S}/dataset/unused.parquet"]
    assert files(methods=["none"]).reserve == [f"{S}/dataset/{name}.parquet" for name in ("unused", "more_real")]


@pytest.mark.parametrize(
    ("pool", "shards", "index"),
    [
        ({"source": "digits"}, [f"{S}/digits/web.tar"], [f"{S}/pool/index"]),
        ({"source": "folder", "path": "data"}, [f"{S}/pool/shards/{i}.tar" for i in (0, 1)], [f"{S}/pool/index"]),
        ({"source": "index", "path": "data"}, None, ["data"]),
        ({"source": "service", "url": "http://x/y", "index": "i"}, None, []),
    ],
)
def test_a_pool_is_shards_of_its_own_or_made_here_or_an_index_elsewhere(pool, shards, index):
    study = files(pool=pool, jobs={"images_per_shard": 2, "shards_per_embedding": 1})
    assert study.index == index
    if shards is not None:
        assert study.pool_shards == shards and study.embedding_jobs == len(shards)
    assert study.pool_ledgers == []
    if pool["source"] == "folder":
        assert study.images_of_pool_shard("1") == ["data/c/1.png", "data/d/1.png"]


def test_the_report_reads_what_became_of_the_links_of_a_pool_that_is_downloaded_first(tmp_path):
    pd.DataFrame({"url": ["http://a.org/1", "http://a.org/2", "http://a.org/3"]}).to_parquet(tmp_path / "a.parquet")
    study = files(pool={"source": "urls", "path": str(tmp_path)}, jobs={"images_per_shard": 2})
    assert report_files(study)["pool_ledgers"] == [f"{S}/pool/shards/{part}.parquet" for part in (0, 1)]
    assert report_files(files(methods=["none"]))["pool_ledgers"] == []


def test_captions_are_indexed_for_the_methods_that_match_them():
    study = files(methods=["none", "retrieval", "retrieval_captions"])
    assert study.captions_of("retrieval") == [] and study.captions_of("retrieval_captions") == [study.pool_captions]
    assert study.matches_captions and not files().matches_captions


def test_models_are_pretrained_or_trained_here():
    study = files()
    assert (study.clip, study.clip_name, study.safety) == ([], "ViT-B/32", f"{S}/backbone")
    digits = yaml.safe_load((Path(__file__).parents[3] / "config" / "config.yaml").read_text())["studies"]["digits"]
    trained = files(clip=digits["clip"], backbone=digits["backbone"])
    assert (trained.clip, trained.clip_name, trained.safety) == ([f"{S}/clip"], f"hf_clip:{S}/clip", f"{S}/safety")
    assert files(methods=["none"], clip=None, backbone=None, pool=None).clip_name is None


def test_the_safety_checker_is_the_backbones_or_named_or_none():
    assert files(safety={"model": "none"}).safety == []
    assert files(safety={"model": "owner/checker"}).safety == f"{S}/safety_checker"
    retrieving = files(methods=["none", "retrieval"], backbone=None, safety={"model": "none"})
    assert (retrieving.safety, retrieving.generating) == ([], [])


def test_a_methods_own_settings_of_generation_are_no_part_of_what_it_is_trained_by():
    study = files(methods=["boomerang", "da_fusion_25", "da_fusion_75"], generate={"noise_share": 0.2, "times": 4})
    shares = {name: study.generation(name).noise_share for name in study.methods}
    assert shares == {"boomerang": 0.2, "da_fusion_25": 0.25, "da_fusion_75": 0.75}
    assert study.method_row("da_fusion_25") == study.method_row("da_fusion_75")
    assert study.main_times("boomerang") == 4 and study.is_trained("da_fusion_25")


def test_images_made_elsewhere_suffice_for_all_ratios():
    scaling = {"methods": ["affine"], "ratios": [0.5, 9]}
    study = files(methods=["none", "affine"], added={"affine": "data"}, scaling=scaling)
    assert (study.external, study.added_place("affine"), study.allows_fewer("affine", "1")) == (
        ["affine"],
        "data",
        False,
    )
    assert study.ratios("affine") == ["1", "0.5", "9"] and study.further_ratio("affine") is None
    tables = [f"{S}/added/affine/images.parquet"]
    assert study.image_tables("affine", "9") == study.image_tables("affine", "1") == tables
    assert study.first_added_set("affine") == [f"{S}/augmentation/affine/x1/split-1.parquet"]
    assert study.first_added_set("none") == []
    scripted = files(methods=["affine"], added={"affine": {"script": "x.py", "allow_fewer": True}})
    assert (scripted.added_place("affine"), scripted.allows_fewer("affine", "1")) == (f"{S}/added/affine/output", True)


UNION = {"title": "U", "family": "union", "start": "methods"}
UNION |= {"of": {"retrieval": 0.25, "ft_cluster_conditioning_k5": 0.25, "affine": 0.5}}


def test_the_methods_of_a_union_are_here_for_their_images_alone():
    sections = {"methods": ["none", "clip_prompts", "u"], "added": {"affine": {"path": "data", "allow_fewer": True}}}
    sections |= {"scaling": {"methods": ["u"], "ratios": [4]}, "clip": {"model": "ViT-B/32"}}
    sections |= {"backbone": {"model": "owner/name"}, "pool": {"source": "digits"}, "runs": 2}
    study = {"target": {"reader": "folder", "path": "data"}} | sections
    rows = {"methods": ROWS["methods"] | {"u": UNION}}
    of = StudyFiles(config.parse(rows | {"studies": {"s": study}}), "s")
    assert of.adding == ["clip_prompts", "u"]
    assert (of.retrieving, of.external) == (["retrieval"], ["affine"])
    assert of.generating == ["clip_prompts", "ft_cluster_conditioning_k5"] and of.cluster_counts == [5]
    assert of.ledgers == [f"{S}/retrieval/retrieval/ledger.parquet"]
    assert of.summaries == [f"{S}/summary/{name}.json" for name in study["methods"]]
    assert {file.split("/")[3] for file in of.predictions} == set(study["methods"])
    assert of.union_sets("u", "4") == [
        f"{S}/augmentation/{name}/x4/split-{k}.parquet" for name in UNION["of"] for k in (1, 2)
    ]
    assert of.union_parts("u", "1")[0] == {
        "method": "retrieval", "share": "1/4", "order": "listed", "allow_fewer": False,
    }  # fmt: skip
    assert of.union_parts("u", "1")[2]["allow_fewer"] and of.union_parts("clip_prompts", "1") == []
    # What the union takes at ratio 4 its methods have at ratio 4, though they themselves are not measured there.
    assert of.ratios("clip_prompts") == ["1"] and of.further_ratio("clip_prompts") is None
    assert of.image_ratios("retrieval") == ["1", "4"] and of.further_ratio("retrieval") == 4
    assert of.further_ratio("u") is None and set(of.method_rows) == {*study["methods"], *UNION["of"]}


def test_the_digits_world_makes_its_own_target():
    study = files(target={"reader": "digits"})
    assert (study.target_section.path, study.target_section.classes) == (
        f"{S}/digits/target",
        f"{S}/digits/classes.csv",
    )
    assert files().target_section.path == "data"


def test_verdicts_count_where_there_are_any(tmp_path):
    study = files()
    assert study.verdict_files == []
    file = tmp_path / study.verdicts("retrieval")
    file.parent.mkdir(parents=True)
    file.touch()
    assert study.verdict_files == ["resources/verdicts/s/retrieval.csv"]


def test_paths_of_any_study_have_wildcards():
    anyone = Paths("{study}")
    assert anyone.shard("{method}", "{purpose}", "{shard}", "tar").format(
        study="s", method="clip_prompts", purpose="base", shard=0
    ) == files().generated("clip_prompts", "tar")[0]  # fmt: skip
    assert anyone.split("train") == "results/{study}/dataset/train.parquet"


def filtered(name, row, **sections):
    """Files of a study that also has the row ``name`` of the method table, filtered by ``row``."""
    rows = {**ROWS["methods"], f"{name}_filtered": ROWS["methods"][name] | {"title": "Filtered", "filter": row}}
    study = {"methods": [*METHODS, f"{name}_filtered"], "target": {"reader": "folder", "path": "data"}, "runs": 3}
    study |= {"clip": {"model": "ViT-B/32"}, "backbone": {"model": "owner/name"}, "pool": {"source": "digits"}}
    return StudyFiles(config.parse({"methods": rows, "studies": {"s": study | sections}}), "s")


@pytest.mark.parametrize("name", ["boomerang", "ft_cluster_conditioning_k5", "retrieval"])
def test_a_filtered_row_adds_the_images_of_the_row_that_is_the_same_without_a_filter(name):
    """Nothing is made or scored twice, and the unfiltered row has the files that it has without the other."""
    study, alone = filtered(name, {"by": "clip", "keep": 0.5}), files()
    twin = f"{name}_filtered"
    assert study.makers[twin] == name and study.makers[name] == name
    for made in ("generating", "retrieving", "external", "stored_shards", "ledgers"):
        assert getattr(study, made) == getattr(alone, made)
    assert study.image_tables(name, "1") == alone.image_tables(name, "1")
    assert study.candidate_tables(twin, "main") == alone.image_tables(name, "1")
    assert study.image_tables(twin, "1") == [f"{S}/filtered/{twin}/main/images.parquet"]
    assert (study.scored, study.filtering) == ([name], [twin])
    assert study.selection_of(twin) == alone.selection_of(name)
    assert study.method_row(twin) == study.method_row(name) == alone.method_row(name)


def test_a_filtered_row_without_such_a_row_makes_its_own_images():
    study = filtered("clip_prompts", {"by": "clip", "keep": 0.5}, methods=["none", "clip_prompts_filtered"])
    assert study.generating == ["clip_prompts_filtered"] == study.scored
    assert study.candidate_tables("clip_prompts_filtered", "main")[0].startswith(f"{S}/images/clip_prompts_filtered")


def test_further_images_are_filtered_apart_and_are_made_for_both_rows():
    scaling = {"methods": ["retrieval_filtered"], "ratios": [5]}
    study = filtered("retrieval", {"by": "clip", "keep": 0.5, "allow_fewer": True}, scaling=scaling)
    assert study.further_ratio("retrieval") == 5 and study.image_tables("retrieval", "1") == [
        f"{S}/retrieval/retrieval/images.parquet"
    ]
    folder = f"{S}/filtered/retrieval_filtered"
    assert study.image_tables("retrieval_filtered", "1") == [f"{folder}/main/images.parquet"]
    assert study.image_tables("retrieval_filtered", "5") == [
        f"{folder}/{extent}/images.parquet" for extent in ("main", "further")
    ]
    assert study.extents("retrieval") == ["main"] and study.scored_extents("retrieval_filtered") == []
    assert study.scored_extents("retrieval") == ["main", "further"]
    assert [study.enough_for("retrieval_filtered", extent) for extent in ("main", "further")] == [1, None]
    assert [study.allows_fewer("retrieval_filtered", ratio) for ratio in ("1", "5")] == [True, False]
    assert not study.allows_fewer("retrieval", "1")


def test_cards_name_the_weights_of_classifiers_that_chose_among_images():
    """By a filter, or among the candidates of a fine-tuning; not where they are trained from scratch."""
    pretrained = {"classifier": {"model": "timm/x", "weights": "pretrained"}}
    study = filtered("retrieval", {"by": "confidence", "keep": 0.5}, **pretrained)
    judge = f"{S}/domain_gap/judge/metrics.json"
    assert study.card_classifier("retrieval_filtered") == judge and study.card_classifier("retrieval") == []
    assert files(**pretrained).card_classifier("ft_cluster_conditioning_k5") == judge
    assert files().card_classifier("ft_cluster_conditioning_k5") == []
    assert filtered("retrieval", {"by": "clip", "keep": 0.5}, **pretrained).card_classifier("retrieval_filtered") == []


def test_leaks_are_those_of_the_audit_and_are_dropped_from_all_methods():
    study = files(drop_leaks=True)
    assert study.filtering == study.scored == METHODS[1:] and study.leaks == (10, None)
    assert files(drop_leaks=True, audit={"detector": "clip", "threshold": 0.75}).leaks == (10, 0.25)
    assert files().leaks is None and files().scored == files().scored_references == []
    scored = files(scores=True)
    assert (scored.scored, scored.filtering, scored.embedder) == (METHODS[1:], [], "clip")
    assert scored.image_tables("retrieval", "1") == files().image_tables("retrieval", "1")
    assert scored.embedded(["train"]) == [f"{S}/audit/vectors/train.parquet"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"by": "clop", "keep": 0.5}, "there is no score 'clop', did you mean 'clip'"),
        ({"by": "clip"}, "filter takes either `keep` or `at_least`"),
        ({"by": "clip", "keep": 0}, "filter.keep"),
    ],
)
def test_mistakes_in_filters_are_named(row, message):
    with pytest.raises(config.ConfigError, match=message):
        filtered("boomerang", row)


def test_what_cannot_be_filtered_is_named():
    with pytest.raises(config.ConfigError, match="start: none adds no images, so there are none to filter"):
        filtered("none", {"by": "confidence", "keep": 0.5})
    for score in ("clip", "train_distance"):
        with pytest.raises(config.ConfigError, match=f"filtered by {score}, which needs the section `clip`"):
            filtered("boomerang", {"by": score, "keep": 0.5}, methods=["none", "boomerang_filtered"], clip=None)
    with pytest.raises(config.ConfigError, match="metrics.encoder: clip needs the section `clip`"):
        files(methods=["none"], clip=None, metrics={"encoder": "clip"})
    with pytest.raises(config.ConfigError, match="there is no encoder 'dino'"):
        files(metrics={"encoder": "dino"})


def test_how_classifiers_are_trained_is_no_part_of_what_images_depend_on():
    recipe = {"augment": "mixup", "mix": {"weight": 0.2}}
    rows = {"methods": ROWS["methods"] | {"other": ROWS["methods"]["boomerang"] | recipe}}
    study = {"methods": ["boomerang", "other"], "target": {"reader": "folder", "path": "data"}}
    study |= {"backbone": {"model": "owner/name"}}
    found = StudyFiles(config.parse(rows | {"studies": {"s": study}}), "s")
    assert found.method_row("other") == found.method_row("boomerang")
    assert found.recipe("other") == {"augment": "mixup", "mix": {"weight": 0.2, "probability": None}}
    assert found.recipe("boomerang") == {"augment": None, "mix": None}


def test_further_classifiers_share_the_sets_and_have_places_of_their_own():
    probe = {"model": "timm/x", "weights": "pretrained", "train": "probe"}
    study = files(classifiers={"probe": probe, "scratch": {}}, scaling={"methods": ["boomerang"], "ratios": [2]})
    assert study.main_runs("metrics.json")[0] == f"{S}/classifier/none/x0/run-1/metrics.json"
    crossed = study.crossed_runs("metrics.json")
    assert len(crossed) == 3 * len(METHODS) * 3
    assert crossed[3 * len(METHODS)] == f"{S}/classifiers/probe/none/x0/run-1/metrics.json"
    assert crossed[-1] == f"{S}/classifiers/scratch/retrieval/x1/run-3/metrics.json"
    assert study.probes == ["probe"]
    assert study.featured("probe") == ["splits", *(f"{method}/x1" for method in METHODS[1:])]
    assert study.featured("scratch") == study.featured("main") == []
    folder = f"{S}/features/probe"
    assert study.features_for("probe", "none", "0") == [f"{folder}/splits.parquet"]
    assert study.features_for("probe", "retrieval", "1") == [
        f"{folder}/splits.parquet",
        f"{folder}/retrieval/x1.parquet",
    ]
    assert study.features_for("main", "retrieval", "1") == []
    splits = [study.split(name) for name in ("train", "validation", "test")]
    assert study.tables_of_features("probe", "none", "0") == [splits]
    assert study.tables_of_features("probe", "retrieval", "1") == [splits, study.added_sets("retrieval", ["1"])]
    assert study.shows_classifiers and not files().shows_classifiers


def test_a_probe_that_is_the_studys_own_has_features_at_all_ratios():
    probe = {"model": "timm/x", "weights": "pretrained", "train": "probe"}
    study = files(classifier=probe, scaling={"methods": ["retrieval"], "ratios": [2]})
    assert study.probes == ["main"] and study.shows_classifiers
    assert study.featured("main")[-2:] == ["retrieval/x1", "retrieval/x2"]


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"classifiers": {"main": {}}}, "studies.s.classifiers: main is the name of the study's `classifier`"),
        (
            {
                "classifiers": {"probe": {"model": "timm/x", "weights": "pretrained", "train": "probe"}},
                "methods": ["none", "mixup"],
            },
            "studies.s.classifiers.probe.train: mixup cannot be trained so: a probe sees each image once, as it is, "
            "and so knows no `augment`: write `train: head`",
        ),
    ],
)
def test_classifiers_that_cannot_be_trained_are_refused(sections, sentence):
    with pytest.raises(config.ConfigError) as error:
        files(**sections)
    assert sentence in str(error.value)


def test_the_report_reads_what_clip_recognises_where_a_study_asks_for_it():
    assert report_files(files(zero_shot=True))["zero_shot"] == f"{S}/zero_shot/metrics.json"
    assert report_files(files())["zero_shot"] is None
