"""The configuration: defaults are the paper's, the files of this repository are valid, the reference is current."""

import json
import math
from pathlib import Path

import jsonschema
import pytest
import yaml

from augbench.jobs import checks
from augbench.models import families
from augbench.study import config, reference
from augbench.study.augments import AUGMENTS
from augbench.study.parts import PARTS, PROMPT
from augbench.study.starts import STARTS

ROOT = Path(__file__).parents[3]
MIX = {"probability": 0.5}


def load(*names):
    merged = {}
    for name in names:
        merged |= yaml.safe_load((ROOT / name).read_text())
    return merged


def test_the_default_study_is_valid():
    parsed = config.parse(load("config/methods.yaml", "config/config.yaml"))
    assert list(parsed.studies) == ["digits"]


def test_defaults_are_the_papers():
    classifier, retrieval = config.Classifier(), config.Retrieval()
    assert (classifier.model, classifier.batch_size, classifier.learning_rate) == ("resnet50", 256, 0.1)
    assert (classifier.max_epochs, classifier.patience, classifier.stop_after) == (270, 10, 20)
    assert (retrieval.overfetch, retrieval.overfetch_max, retrieval.min_aesthetic) == (1.4, 14, 5.0)
    assert (config.Generate().times, config.Dataset().train) == (3, 0.1)
    own = families.DEFAULT.with_defaults(config.Generate())
    assert (own.image_size, own.steps, own.guidance) == (512, 50, 7.5)


def test_the_reference_is_made_from_the_code():
    assert (ROOT / "config" / "README.md").read_text() == reference.markdown(), "run `make docs`"


def test_the_introductions_example_is_a_good_configuration(tmp_path, monkeypatch):
    example = yaml.safe_load(reference.INTRODUCTION.split("```yaml\n")[1].split("```")[0])
    jsonschema.validate(example, json.loads(reference.json_schema()))
    table = load("config/methods.yaml")
    (tmp_path / "resources" / "templates").mkdir(parents=True)
    (tmp_path / "resources" / "templates" / "blurry.txt").write_text("A blurry photo of {n}.")
    monkeypatch.chdir(tmp_path)
    birds = config.parse({"methods": table["methods"] | example["methods"], "studies": example["studies"]})
    assert birds.studies["birds"].classifier == config.Classifier()


def test_the_schema_for_editors_is_made_from_the_code():
    assert (ROOT / "config" / "schema.json").read_text() == reference.json_schema(), "run `make docs`"


CONFIGURATIONS = [*sorted((ROOT / "config").glob("*.yaml")), ROOT / "tests" / "workflow" / "small.yaml"]


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.name)
def test_an_editor_finds_no_fault_with_a_good_configuration(file):
    jsonschema.validate(yaml.safe_load(file.read_text()), json.loads(reference.json_schema()))
    if file.parent.name == "config":
        assert file.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda study: study.update(sed=1), "'sed' was unexpected"),
        (lambda study: study["classifier"].update(batch_size="many"), "'many' is not of type 'integer'"),
        (lambda study: study["target"].update(reader="folders"), "'folders' is not one of"),
    ],
)
def test_an_editor_sees_a_mistake(edit, message):
    raw = load("config/config.yaml")
    edit(raw["studies"]["digits"])
    with pytest.raises(jsonschema.ValidationError, match=message):
        jsonschema.validate(raw, json.loads(reference.json_schema()))


def test_every_mistake_is_told_at_once():
    raw = load("config/methods.yaml", "config/config.yaml")
    raw["studies"]["digits"] |= {"sed": 1, "runs": 0}
    with pytest.raises(config.ConfigError) as error:
        config.parse(raw)
    assert "studies.digits.sed: there is no such key, did you mean 'seed'?" in str(error.value)
    assert "studies.digits.runs: Input should be greater than or equal to 1 (it says 0)" in str(error.value)


def test_a_query_is_a_name_or_weights_and_dumps_as_it_was_written():
    row = {"title": "", "family": "", "start": "pool", "conditioning": "simple_prompt"}
    for written in ("text", "text_and_images"):
        assert config.Method(**row, query=written).model_dump()["query"] == written
    assert config.Method(**row, query={"texts": 2, "images": 2}).query.images == 2
    method = config.Method(**row, query={"texts": 1, "images": 0.5, "not": "drawing"})
    assert config.Method.from_row(method.model_dump()).query == method.query
    schema, methods = json.loads(reference.json_schema()), load("config/methods.yaml")["methods"]
    for query in ("text_and_images", {"texts": 1, "not": "drawing"}):
        jsonschema.validate({"methods": {"m": methods["retrieval"] | {"query": query}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"methods": {"m": methods["retrieval"] | {"query": {"unlike": "drawing"}}}}, schema)


def test_a_missing_template_names_the_known_ones():
    raw = load("config/methods.yaml", "config/config.yaml")
    raw["methods"]["mine"] = {
        "title": "m",
        "family": "prompting",
        "start": "noise",
        "conditioning": "clip_promts",
    }
    with pytest.raises(config.ConfigError, match=r"clip_promts.txt, did you mean 'clip_prompts'\?"):
        config.parse(raw)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"start": "pool", "trained": ["unet"]}, "start: pool does not use `trained`"),
        ({"trained": ["conditioning", "pseudo_word"]}, "either conditioning or pseudo_word"),
        ({"clusters": 5}, "clusters needs `trained: [conditioning]`"),
        ({"trained": ["pseudo_word"]}, "templates hold {p}, the learned pseudo-word, with"),
        ({"conditioning": "textual_inversion"}, "templates hold {p}, the learned pseudo-word, with"),
        ({"conditioning": None}, "start: noise needs a conditioning"),
        (
            {"trained": ["vae"]},
            "there is no part 'vae' (known: conditioning, pseudo_word, unet, lora, text_enc",
        ),
        ({"trained": [3]}, "there is no part 3"),
        ({"start": ["noise"]}, "there is no start ['noise']"),
        ({"candidates": ["best"]}, "String should match pattern"),
        (
            {"match": "both"},
            "start: noise does not use query, diversity and match; methods that retrieve",
        ),
        (
            {"start": "pool", "query": "txt"},
            "there is no query 'txt', did you mean 'text'? (known: text, text_and_",
        ),
        (
            {"start": "pool", "query": {"not": "drawing"}},
            "a query needs a weight of texts or images above 0",
        ),
        ({"start": "pool", "query": {"texts": 1, "not": " "}}, "not: is empty; write a text, e.g. `not: drawing`"),
        ({"query": {"texts": 1, "images": 0.5}}, "start: noise does not use query, diversity and match"),
        ({"match": "captions"}, "there is no match 'captions', did you mean 'caption'? (known: clip, caption, both)"),
        (
            {"start": "pool", "match": "caption", "diversity": 0.3},
            "match: caption goes without diversity, which",
        ),
        ({"augment": "rand_augment"}, "there is no augment 'rand_augment', did you mean 'randaugment'? (known: rand"),
        ({"augment": ["mixup", "cutmix"]}, "there is no augment ['mixup', 'cutmix']"),
        (
            {"start": "none", "conditioning": None, "mix": {"weight": 0.2}},
            "start: none adds no images that could be mixed in: leave out `mix`",
        ),
        (
            {"mix": {"weight": 0.2, "probability": 0.5}},
            "mix takes either `weight` or `probability`, e.g. `mix: {probability: 0.5}`",
        ),
        ({"mix": {}}, "mix takes either `weight` or `probability`"),
        ({"mix": {"weight": 1}}, "less than 1"),
        ({"mix": {"probability": 0}}, "greater than 0"),
    ],
)
def test_rows_that_make_no_method_are_refused(row, sentence):
    raw = load("config/methods.yaml", "config/config.yaml")
    mine = {"title": "m", "family": "fine-tuning", "start": "noise", "conditioning": "simple_prompt"}
    raw["methods"]["mine"] = mine | row
    with pytest.raises(config.ConfigError, match=r"^methods\.mine") as error:
        config.parse(raw)
    assert sentence in str(error.value)


def test_every_augment_has_a_row_that_adds_nothing():
    rows = config.parse(load("config/methods.yaml", "config/config.yaml")).methods
    alone = {name: row.augment.name for name, row in rows.items() if row.augment}
    assert alone == {name: name for name in AUGMENTS}
    assert not any(rows[name].start.adds_images or rows[name].mix for name in alone)


def test_augments_and_mixes_go_with_any_start():
    raw = load("config/methods.yaml", "config/config.yaml")
    for name, row in list(raw["methods"].items()):
        raw["methods"][f"{name}_2"] = row | {"augment": "cutmix"} | ({"mix": MIX} if row["start"] != "none" else {})
    rows = config.parse(raw).methods
    assert {name for name, row in rows.items() if row.is_target_alone} == {"none"}
    assert rows["retrieval_2"].recipe.model_dump() == {"augment": "cutmix", "mix": {"weight": None} | MIX}
    assert (rows["none"].reference_line, rows["randaugment"].reference_line) == ("dashed", None)
    assert (rows["more_real"].reference_line, rows["more_real_2"].reference_line) == ("dotted", None)


def test_a_denoiser_alone_can_be_trained():
    raw = load("config/methods.yaml", "config/config.yaml")
    row = {
        "title": "m",
        "family": "fine-tuning",
        "start": "noise",
        "conditioning": "simple_prompt",
        "trained": ["unet"],
    }
    raw["methods"]["mine"] = row
    mine = config.parse(raw).methods["mine"]
    assert mine.trained == [PARTS["unet"]]
    assert mine.guide is PROMPT
    assert mine.model_dump()["trained"] == ["unet"]


def test_a_job_knows_its_method_but_for_title_and_family():
    mine = config.parse(load("config/methods.yaml", "config/config.yaml")).methods["pseudoword_dm"]
    row = mine.model_dump(exclude={"title", "family"}) | {"texts": "a digest"}
    again = config.Method.from_row(row)
    assert again == mine.model_copy(update={"title": "", "family": ""})
    assert again.guide is PARTS["pseudo_word"]


def test_clusters_need_an_embedding_and_candidates_their_epochs():
    raw = load("config/methods.yaml", "config/config.yaml")
    study = raw["studies"]["digits"]
    study["methods"] = ["pseudoword_dm", "none"]
    study["finetune"] |= {"max_epochs": 2}
    config.parse(raw)
    raw["methods"]["pseudoword_dm"]["candidates"] = ["epoch-3"]
    with pytest.raises(config.ConfigError, match="2 epochs are fewer than pseudoword_dm needs"):
        config.parse(raw)
    study |= {"methods": ["ft_cluster_conditioning_k5"], "clip": None, "backbone": {"model": "x/y"}}
    with pytest.raises(
        config.ConfigError, match=r"needs the section `clip`, or `finetune: \{embedding: inception_v3\}`"
    ):
        config.parse(raw)


def test_a_zero_shot_baseline_needs_a_clip():
    raw = load("config/methods.yaml", "config/config.yaml")
    raw["studies"] = {"s": {"methods": ["none"], "target": {"reader": "digits"}, "zero_shot": True}}
    with pytest.raises(
        config.ConfigError, match=r"studies.s.zero_shot: true needs the section `clip`; write it, e.g. "
    ):
        config.parse(raw)
    raw["studies"]["s"]["clip"] = {"model": "ViT-B/32"}
    assert config.parse(raw).studies["s"].zero_shot


def test_ratios_of_a_method_are_the_studys_and_those_of_its_scaling():
    raw = load("config/methods.yaml", "config/config.yaml")
    raw["studies"]["digits"] |= {
        "ratios": [1],
        "scaling": {"methods": ["retrieval", "pseudoword_dm"], "ratios": [10, 0.5]},
    }
    study = config.parse(raw).studies["digits"]
    assert study.wanted_ratios("retrieval") == [1, 0.5, 10]
    assert study.wanted_ratios("clip_prompts") == [1]
    methods = config.parse(raw).methods
    assert study.main_times(methods["clip_prompts"]) == 3
    enough = {name: start.enough(study, methods["boomerang"]) for name, start in STARTS.items()}
    assert enough == {
        "none": None,
        "more_real": None,
        "noise": 3,
        "image": 3,
        "pool": 1,
        "folder": math.inf,
        "methods": math.inf,
    }
    for wrong in ("more_real", "retrieval_diverse"):
        raw["studies"]["digits"]["scaling"]["methods"] = [wrong]
        with pytest.raises(config.ConfigError, match=f"scaling.methods: '{wrong}' is not one of the study's methods"):
            config.parse(raw)
    raw["studies"]["digits"]["scaling"] = {"ratios": [2]}
    with pytest.raises(config.ConfigError, match="scaling needs methods and ratios"):
        config.parse(raw)


def test_a_method_generates_by_its_own_settings_where_it_has_some():
    methods = config.parse(load("config/methods.yaml") | {"studies": {"birds": BIRDS}}).methods
    section = config.Generate(images_per_class=390)
    assert methods["boomerang"].generation(section) == section
    own = {"strength": 0.7, "guidance": 2.0, "steps": 9, "negative_prompt": "text", "variations": 4}
    varied = config.Method.model_validate(methods["boomerang"].model_dump() | own).generation(section)
    known = {"noise_share": 0.7, "guidance": 2.0, "steps": 9, "negative_prompt": "text", "times": 4}
    assert varied.model_dump() == section.model_dump() | known | {"images_per_class": None}
    assert [methods[f"da_fusion_{share}"].strength for share in (25, 50, 75)] == [0.25, 0.5, 0.75]
    assert {methods[f"da_fusion_{share}"].mix.probability for share in (25, 50, 75)} == {0.5}
    study = birds(backbone={"model": "x/y"}, ratios=[5.0])
    assert study.main_times(config.Method.model_validate(methods["boomerang"].model_dump() | own)) == 5


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"start": "pool", "conditioning": "simple_prompt", "steps": 3}, "start: pool goes without steps"),
        ({"start": "folder", "guidance": 3}, "start: folder goes without guidance; .* `start: noise or image`"),
        ({"start": "noise", "conditioning": "simple_prompt", "strength": 0.5}, "start: noise goes without strength"),
        ({"start": "noise", "conditioning": "simple_prompt", "variations": 2}, "`start: image`"),
        ({"start": "image", "strength": 0}, "methods.mine.strength: Input should be greater than 0"),
        ({"start": "image", "trained": ["unet"]}, "trained needs a conditioning"),
        ({"start": "noise", "conditioning": "none.json"}, "there is no file none.json; it holds prompts"),
    ],
)
def test_what_is_said_of_generation_fits_the_start(row, sentence):
    mine = {"title": "Mine", "family": "mine"} | row
    raw = load("config/methods.yaml")
    raw = {"methods": raw["methods"] | {"mine": mine}, "studies": {"birds": BIRDS}}
    with pytest.raises(config.ConfigError, match=sentence):
        config.parse(raw)


def test_fine_tuning_takes_no_prompts_of_each_class(tmp_path):
    (tmp_path / "prompts.json").write_text('{"a": ["b"]}')
    mine = {"title": "Mine", "family": "mine", "start": "noise", "conditioning": str(tmp_path / "prompts.json")}
    raw = load("config/methods.yaml")
    for trained in ([], ["unet"]):
        both = {"methods": raw["methods"] | {"mine": mine | {"trained": trained}}, "studies": {"birds": BIRDS}}
        if not trained:
            assert config.parse(both).methods["mine"].conditioning == mine["conditioning"]
            continue
        with pytest.raises(config.ConfigError, match="trained needs templates"):
            config.parse(both)


BIRDS = {"methods": ["none"], "target": {"reader": "folder", "path": "birds"}}


def refused(**sections) -> str:
    with pytest.raises(config.ConfigError) as error:
        birds(**sections)
    return str(error.value)


def birds(**sections) -> config.Study:
    raw = load("config/methods.yaml") | {"studies": {"birds": BIRDS | sections}}
    return config.parse(raw).studies["birds"]


def test_a_study_says_where_images_lie_that_were_made_elsewhere():
    study = birds(methods=["none", "affine"], added={"affine": "data/affine"})
    assert study.added["affine"] == birds(methods=["affine"], added={"affine": {"path": "data/affine"}}).added["affine"]
    assert config.Study(**study.model_dump()) == study
    assert "say where the images of affine lie, e.g. `added: {affine: data/mine}`" in refused(methods=["affine"])
    assert "no method 'afine' whose images are made elsewhere, with `start: folder`, did you mean 'affine'?" in refused(
        added={"afine": "data"}
    )
    for entry in ({}, {"path": "data", "script": "x.py"}):
        assert "studies.birds.added.affine: a method of `added` takes either `path` or `script`" in refused(
            methods=["affine"], added={"affine": entry}
        )
    assert "studies.birds.added.affine.pth: there is no such key, did you mean 'path'?" in refused(
        added={"affine": {"pth": "data"}}
    )


def test_the_schema_takes_a_path_for_a_section():
    schema = json.loads((ROOT / "config" / "schema.json").read_text())
    for entry, fits in (("data", True), ({"path": "data", "allow_fewer": True}, True), ({"paths": "data"}, False)):
        study = BIRDS | {"added": {"affine": entry}}
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors({"studies": {"birds": study}}))
        assert (not errors) == fits


def test_retrieval_needs_no_diffusion_model_but_an_answer_on_safety():
    sections = {"methods": ["none", "retrieval"], "clip": {"model": "ViT-B/32"}, "pool": {"source": "digits"}}
    assert (
        "studies.birds.safety: the images of retrieval are checked by what a backbone ships, and the study has no "
        "`backbone`: write `safety: {model: CompVis/stable-diffusion-safety-checker}`, or `safety: {model: none}`"
    ) in refused(**sections)
    for model in ("none", "CompVis/stable-diffusion-safety-checker"):
        assert birds(**sections, safety={"model": model}).backbone is None
    assert birds(**sections, backbone={"model": "x/y"}).safety.model == "auto"
    assert birds().safety.is_backbones  # nothing is checked where nothing is retrieved or generated


def test_what_classes_lack_is_said_and_disables_nothing_else(tmp_path):
    from PIL import Image

    for key in ("owl", "crow"):
        (tmp_path / "data" / key).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "data" / key / "1.png")
    (tmp_path / "names.csv").write_text("class,lemmas,hypernyms\nowl,owl,bird of prey\n")
    raw = load("config/methods.yaml")
    given = {"reader": "folder", "path": str(tmp_path / "data"), "classes": str(tmp_path / "names.csv")}
    methods = ["clip_prompts", "sariyildiz_prompts", "none"]
    raw["studies"] = {"birds": {"methods": methods, "target": given, "backbone": {"model": "x/y"}}}
    (sentence,) = checks.remarks(config.parse(raw))
    assert sentence.startswith(
        "studies.birds: 2 of 2 classes have no hypernyms or definition; sariyildiz_prompts leaves"
    )
    (tmp_path / "names.csv").write_text("class,lemmas,hypernym,definition\nowl,owl,bird,flies\ncrow,crow,bird,flies\n")
    assert checks.remarks(config.parse(raw)) == []


def test_added_images_are_compared_with_every_split_but_their_own():
    audit = config.Audit(references={"original_test": "data/test"})
    assert audit.references_of(STARTS["pool"]) == ["test", "validation", "more_real", "unused", "original_test"]
    assert audit.references_of(STARTS["more_real"]) == ["test", "validation", "unused", "original_test"]


def test_sets_that_are_judged_in_full_are_reference_sets():
    study = {"methods": ["none"], "target": {"reader": "digits"}, "evaluate": {"sketch": {"path": "data/sketch"}}}
    assert config.Study(**study).judged_in_full == ["test", "sketch"]
    audit = {"references": {"original_test": "data/test"}, "in_full": ["original_test", "sketch"]}
    assert config.Study(**study, audit=audit).judged_in_full == ["original_test", "sketch"]
    with pytest.raises(ValueError, match=r"audit.in_full: there is no reference set 'tests', did you mean 'test'"):
        config.Study(**study, audit={"in_full": ["tests"]})
    with pytest.raises(ValueError, match="more_real is a split of the target"):
        config.Audit(references={"more_real": "data/more"})
