"""Several diffusion models in one study: a method's row says which of them generates its images."""

import family_pipelines
import pytest
import yaml

from augbench.jobs import checks
from augbench.jobs.job_costs import JobCosts
from augbench.jobs.study_files import StudyFiles
from augbench.study import config

SIMPLE = {"title": "Simple", "family": "prompting", "conditioning": "simple_prompt", "start": "noise"}
ROWS = yaml.safe_load(open("config/methods.yaml"))["methods"] | {
    "plain": SIMPLE,
    "large": SIMPLE | {"backbone": "sdxl"},
    "varied": SIMPLE | {"backbone": "sd14", "start": "image"},
}
SDXL, SD14 = {"model": "stabilityai/stable-diffusion-xl-base-1.0"}, {"model": "CompVis/stable-diffusion-v1-4"}
MODELS = {"sdxl": SDXL, "sd14": SD14}


def parsed(methods, **sections):
    raw = {"methods": ["none", *methods], "target": {"reader": "digits"}} | sections
    return config.parse({"methods": ROWS, "studies": {"s": raw}})


def test_each_method_has_the_files_of_its_own_backbone():
    study = parsed(["plain", "large", "varied"], backbone={"model": "owner/own"}, backbones=MODELS)
    files = StudyFiles(study, "s")
    assert files.backbone_of("plain") == "results/s/backbone"
    assert files.backbone_of("large") == "results/s/backbones/sdxl"
    assert files.latents_of("plain", "train") == "results/s/latents/train.safetensors"
    assert files.latents_of("varied", "train") == "results/s/latents/sd14/train.safetensors"
    assert files.backbone_names == ["sdxl", "sd14"] and files.encoded_backbones == ["sd14"]
    assert "backbone" not in files.method_row("large")  # the folder that is read says it
    rules = [rule for rule, _ in JobCosts(files).jobs()]
    assert rules.count("fetch_named_backbone") == 2 and rules.count("fetch_backbone") == 1
    assert rules.count("encode_latents") == 1
    costs = JobCosts(files)
    large, plain = (costs.generate(method, "base", "0") for method in ("large", "plain"))
    assert large.seconds == pytest.approx(2.5 * 4 * plain.seconds)  # SDXL's work at 1024 pixels
    assert large.megabytes > plain.megabytes


def test_adapters_of_each_class_take_so_many_times_the_memory_and_the_disk():
    costs = JobCosts(StudyFiles(parsed(["datadream", "datadream_target"], backbone=SD14), "s"))
    own, shared = (costs.select(name).writes for name in ("datadream", "datadream_target"))
    assert own == len(costs.size.train) * shared
    one, all_classes = (costs.finetune(name, "1").megabytes for name in ("datadream_target", "datadream"))
    assert all_classes - one == pytest.approx((8 * own - 3 * shared) / 1e6)


def test_a_learned_conditioning_of_sdxl_has_the_states_of_two_encoders_and_their_pooled_output():
    rows = ROWS | {"wide": ROWS["ft_conditioning"] | {"backbone": "sdxl"}}
    raw = {"methods": ["none", "ft_conditioning", "wide"], "target": {"reader": "digits"}, "backbone": SD14}
    study = config.parse({"methods": rows, "studies": {"s": raw | {"backbones": {"sdxl": SDXL}}}})
    costs = JobCosts(StudyFiles(study, "s"))
    own, wide = (costs.select(name).writes for name in ("ft_conditioning", "wide"))
    assert wide / own == pytest.approx(78 * 2048 / (77 * 768))


def test_a_name_that_is_not_there_and_a_method_without_one_are_named():
    none = {"safety": {"model": "none"}}
    with pytest.raises(config.ConfigError, match=r"there is no 'sdxl', by which large is generated.* \(known: sd14\)"):
        parsed(["large"], backbones={"sd14": SD14}, **none)
    with pytest.raises(config.ConfigError, match="which is missing; or write which of sdxl, sd14 generates plain, as"):
        parsed(["plain"], backbones=MODELS, **none)
    with pytest.raises(config.ConfigError, match="`backbone`, which is missing$"):
        parsed(["plain"])
    with pytest.raises(config.ConfigError, match="no `backbone`: write `safety"):
        parsed(["large"], backbones=MODELS)
    with pytest.raises(config.ConfigError, match="start: none goes without backbone"):
        config.parse({"methods": {"none": ROWS["none"] | {"backbone": "sdxl"}}, "studies": {}})


@pytest.fixture(scope="module")
def pixart(tmp_path_factory):
    return family_pipelines.write(tmp_path_factory.mktemp("pixart") / "model", "pixart")


def refusal(tmp_path, methods, **sections):
    with pytest.raises(config.ConfigError) as told:
        checks.check_world(parsed(methods, **sections), tmp_path / "results")
    return str(told.value)


def test_each_backbone_is_checked_for_the_methods_that_it_generates(pixart, tmp_path):
    backbones = {"sdxl": {"model": str(pixart)}, "sd14": {"model": str(pixart)}}
    sections = {"backbones": backbones, "safety": {"model": "none"}}
    checks.check_world(parsed(["large"], **sections), tmp_path / "results")
    said = refusal(tmp_path, ["large", "varied"], **sections)
    assert said.startswith("studies.s.methods: varied begins otherwise than from noise (`start: image`), which is not")
    (tmp_path / "one").mkdir()
    said = refusal(tmp_path, ["large"], **sections | {"backbones": {"sdxl": {"model": str(tmp_path / "one")}}})
    assert said.startswith("studies.s.backbones.sdxl.model: ") and "has no model_index.json" in said
    said = refusal(tmp_path, ["large"], **sections | {"backbones": {"sdxl": {"model": str(pixart), "revision": "v1"}}})
    assert "is a folder, which has no revisions; leave `revision` out" in said


def test_what_is_known_of_ids_on_the_hub_is_said_before_they_are_fetched(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    said = refusal(tmp_path, ["plain"], backbone=SDXL)
    assert "stable-diffusion-xl-base-1.0 has no safety_checker" in said and "`safety: {model: CompVis/" in said
    none = {"safety": {"model": "none"}}
    said = refusal(tmp_path, ["plain"], backbone={"model": "black-forest-labs/FLUX.1-dev"}, **none)
    assert "studies.s.backbone.model: black-forest-labs/FLUX.1-dev is gated: accept its terms" in said
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    flux = {"backbone": {"model": "black-forest-labs/FLUX.1-dev"}} | none
    checks.check_world(parsed(["plain"], **flux), tmp_path / "results")
    said = refusal(tmp_path, ["plain"], **flux, generate={"negative_prompt": "blurred"})
    assert said == "studies.s.methods: FLUX.1 has no negative prompt; leave `negative_prompt` out"
    own = {"backbone": SD14 | {"offload": "model"}}
    assert "backbone.offload: Stable Diffusion 1.x and 2.x needs none" in refusal(tmp_path, ["plain"], **own)
