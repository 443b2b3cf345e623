"""What can be known before any work starts is said then: each mistake in one sentence, and nothing is loaded for it."""

import itertools
import json
import re
import shutil
import struct
import subprocess
import sys

import looks_like
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from augbench.jobs import checks
from augbench.models import local_files
from augbench.retrieval import index as pool_index
from augbench.study import config

METHODS = yaml.safe_load(open("config/methods.yaml"))["methods"]


def study(folder, methods=("none", "more_real"), **sections):
    """A configuration over the classes in ``folder``."""
    target = {"reader": "folder", "path": str(folder)}
    raw = {"methods": list(methods), "target": target, "classifier": {"model": "small_cnn"}} | sections
    return config.parse({"methods": METHODS, "studies": {"s": raw}})


def fill(folder, counts):
    for key, count in counts.items():
        (folder / key).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (4, 4), (i % 256, 0, 0)).save(folder / key / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("animals"), {"cat": 12, "dog": 12})


def refusal(raw, tmp_path) -> str:
    with pytest.raises(config.ConfigError) as told:
        checks.check_world(raw, tmp_path / "results")
        checks.remarks(raw)
    assert "\n" not in str(told.value)
    return str(told.value)


# --- splits and names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_no_split_is_left_empty(animals, tmp_path, split):
    said = refusal(study(animals, dataset={split: 0}), tmp_path)
    assert said.startswith(f"studies.s.dataset.{split}: 0 leaves no {split} images")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("inside", ["flat", "nothing", "other files"])
def test_a_split_of_ones_own_has_images_in_classes(tmp_path, split, inside):
    fill(tmp_path / "data" / "train", {"cat": 9, "dog": 9})
    place = tmp_path / "data" / split
    place.mkdir()
    if inside == "flat":
        Image.new("RGB", (4, 4)).save(place / "1.png")
    if inside == "other files":
        (place / "cat").mkdir()
        (place / "cat" / "notes.txt").write_text("x")
    said = refusal(study(tmp_path / "data"), tmp_path)
    assert f"{tmp_path / 'data'}" in said and ("holds no image" in said or "cannot be used" in said)


def test_shares_and_counts_that_leave_a_class_without_a_split_are_those_that_are_refused(tmp_path):
    """Against the split itself, for every small count and many shares."""
    from augbench.dataset import splits

    folders = {n: fill(tmp_path / f"of{n}", {"cat": n, "dog": 60}) for n in (1, 2, 3, 4, 7)}
    for n, (train, validation, test) in itertools.product(folders, itertools.product([0.1, 0.34, 0.8], repeat=3)):
        if train + validation + test > 1:
            continue
        raw = study(folders[n], ["none"], dataset={"train": train, "validation": validation, "test": test})
        given = raw.studies["s"]
        try:
            splits.split(given.target, given.dataset, 0)
            fits = True
        except ValueError:
            fits = False
        try:
            checks.check_splits(given, "studies.s")
            assert fits
        except config.ConfigError:
            assert not fits


@pytest.mark.parametrize("key", ["-", "_", ",", ", ,", "-_-", " ", "a\x07b", "\x1b"])
def test_a_class_without_a_name_is_refused_where_prompts_are_made(tmp_path, key):
    fill(tmp_path / "data", {key: 9, "dog": 9})
    backbone = {"backbone": {"model": "owner/name"}}
    said = refusal(study(tmp_path / "data", ["none", "simple_prompt"], **backbone), tmp_path)
    assert "for prompts; name it in a CSV" in said and repr(key) in said
    checks.check_world(study(tmp_path / "data"), tmp_path / "results")  # without prompts any name will do
    if not key.strip():  # no list can name it: white space around names is no part of them
        return
    names = tmp_path / "names.csv"
    pd.DataFrame({"class": [key], "lemmas": ["minus sign"]}).to_csv(names, index=False)
    target = {"reader": "folder", "path": str(tmp_path / "data"), "classes": str(names)}
    raw = study(tmp_path / "data", ["none", "simple_prompt"], **backbone, target=target)
    checks.check_names(raw.studies["s"], "")


@pytest.mark.parametrize("key", ["+", "∑", "猫", "😀", "C#", "ice\u00a0cream", "a-b"])
def test_any_sign_is_a_name(tmp_path, key):
    fill(tmp_path / "data", {key: 9, "dog": 9})
    raw = study(tmp_path / "data", ["none", "simple_prompt"], backbone={"model": "owner/name"})
    checks.check_names(raw.studies["s"], "")


# --- models ---------------------------------------------------------------------------------------------


def safetensors(path, numbers=4):
    head = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4 * numbers))


@pytest.fixture
def pipeline(tmp_path):
    """A folder that looks like Stable Diffusion from outside."""
    folder = tmp_path / "sd"
    for part in looks_like.PARTS:
        (folder / part).mkdir(parents=True)
    for part, stem in looks_like.STEMS.items():
        (folder / part / "config.json").write_text("{}")
        safetensors(folder / part / f"{stem}.safetensors")
    for part, name in looks_like.DESCRIBED.items():
        (folder / part / name).write_text("{}")
    (folder / "model_index.json").write_text(json.dumps(looks_like.index()))
    return folder


def index_with(folder, **changes):
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def fp16(folder, part="unet"):
    file = folder / part / f"{looks_like.STEMS[part]}.safetensors"
    file.rename(file.with_suffix("").with_suffix(".fp16.safetensors"))


def cut(folder, part="vae"):
    file = folder / part / f"{looks_like.STEMS[part]}.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def pointer(folder, part="text_encoder"):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 492265168\n"
    (folder / part / f"{looks_like.STEMS[part]}.safetensors").write_text(text)


def sharded(folder, part="unet"):
    file = folder / part / f"{looks_like.STEMS[part]}.safetensors"
    first, second = (file.with_suffix("").with_suffix(f".{k}.safetensors") for k in "12")
    file.rename(first)
    index = {"weight_map": {"a": first.name, "b": second.name}}
    (file.parent / f"{file.name}.index.json").write_text(json.dumps(index))


DAMAGE = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
    "index of a list": (lambda folder: (folder / "model_index.json").write_text("[]"), "is not a JSON object"),
    "SDXL in name": (lambda folder: index_with(folder, _class_name="StableDiffusionXLPipeline"), "text_encoder_2"),
    "inpainting": (
        lambda folder: index_with(folder, _class_name="StableDiffusionInpaintPipeline"),
        "is a StableDiffusionInpaintPipeline, which draws no pictures from prompts alone",
    ),
    "no class": (lambda folder: index_with(folder, _class_name=None), "one of these classes: StableDiffusionPipeline,"),
    "flow matching": (
        lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text(
            json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"})
        ),
        "has the scheduler FlowMatchEulerDiscreteScheduler for flow matching, but Stable Diffusion",
    ),
    "SD 2": (lambda folder: index_with(folder, safety_checker=[None, None]), "has no safety_checker: generated"),
    "checker removed": (lambda folder: shutil.rmtree(folder / "safety_checker"), "has no safety_checker"),
    "no extractor": (lambda folder: index_with(folder, feature_extractor=[None, None]), "has no feature_extractor"),
    "no VAE": (lambda folder: shutil.rmtree(folder / "vae"), "has no vae"),
    "no scheduler": (lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(), "no scheduler_config"),
    "no config": (lambda folder: (folder / "unet" / "config.json").unlink(), "unet has no config.json"),
    "no weights": (
        lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
        "unet has no diffusion_pytorch_model.safetensors",
    ),
    "fp16": (fp16, "diffusion_pytorch_model.fp16.safetensors only"),
    "fp16 of the checker": (lambda folder: fp16(folder, "safety_checker"), "model.fp16.safetensors only"),
    "cut": (cut, "is cut off"),
    "empty": (lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b""), "is cut off"),
    "pointer": (pointer, "is a Git LFS pointer"),
    "a shard is missing": (sharded, "has no diffusion_pytorch_model.2.safetensors, which its index names"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_backbone_that_is_not_whole_is_refused_at_once_and_when_it_is_fetched(animals, pipeline, tmp_path, kind):
    from augbench.models import backbones

    raw = study(animals, ["none", "simple_prompt"], backbone={"model": str(pipeline)})
    checks.check_world(raw, tmp_path / "results")
    damage, sentence = DAMAGE[kind]
    damage(pipeline)
    said = refusal(raw, tmp_path)
    assert said.startswith("studies.s.backbone.model: ") and sentence in said and str(pipeline) in said
    with pytest.raises(ValueError, match="sd") as told:
        backbones.resolve(str(pipeline), tmp_path / "out")
    assert sentence in str(told.value) and not (tmp_path / "out").exists()


def test_a_backbone_without_a_checker_will_do_where_another_is_named_or_none_is_wanted(animals, pipeline, tmp_path):
    from augbench.models import backbones

    checker = tmp_path / "checker"
    shutil.copytree(pipeline / "safety_checker", checker)
    shutil.copy(pipeline / "feature_extractor" / "preprocessor_config.json", checker)
    shutil.rmtree(pipeline / "safety_checker")
    index_with(pipeline, safety_checker=[None, None], feature_extractor=[None, None])

    def with_safety(model):
        sections = {"backbone": {"model": str(pipeline)}, "safety": {"model": model}}
        return study(animals, ["none", "simple_prompt"], **sections)

    said = refusal(with_safety("auto"), tmp_path)
    assert "name one, `safety: {model: CompVis/stable-diffusion-safety-checker}`, or check nothing, `safety: " in said
    for model in ("none", str(checker), "owner/checker"):
        checks.check_world(with_safety(model), tmp_path / "results")
    backbones.resolve(str(pipeline), tmp_path / "backbone", has_checker=False)
    backbones.resolve_checker(str(checker), tmp_path / "resolved")
    names = {str(file.relative_to(tmp_path / "resolved")) for file in (tmp_path / "resolved").rglob("*.*")}
    assert names == {
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
    }
    backbones.resolve_checker(str(tmp_path / "resolved"), tmp_path / "again")
    assert (tmp_path / "again" / "safety_checker" / "model.safetensors").is_file()


CHECKERS = {
    "no such folder": (lambda folder: shutil.rmtree(folder), "there is no folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no processor": (lambda folder: (folder / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
    "cut": (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678"), "is cut off"),
}


@pytest.mark.parametrize("kind", CHECKERS)
def test_a_named_checker_that_is_not_whole_is_refused(animals, pipeline, tmp_path, kind):
    checker = tmp_path / "checker"
    shutil.copytree(pipeline / "safety_checker", checker)
    shutil.copy(pipeline / "feature_extractor" / "preprocessor_config.json", checker)
    damage, sentence = CHECKERS[kind]
    damage(checker)
    sections = {"backbone": {"model": str(pipeline)}, "safety": {"model": str(checker)}}
    said = refusal(study(animals, ["none", "simple_prompt"], **sections), tmp_path)
    assert said.startswith("studies.s.safety.model: ") and sentence in said


# --- images made elsewhere ------------------------------------------------------------------------------


def with_added(animals, path, **sections):
    return study(animals, ["none", "affine"], added={"affine": path}, **sections)


HALF = {"dataset": {"train": 0.5, "validation": 0.25, "test": 0.25}}  # six training images of each class


def test_images_made_elsewhere_are_checked_before_any_work(animals, tmp_path):
    mine = fill(tmp_path / "mine", {"cat": 6, "dog": 6})
    checks.check_world(with_added(animals, str(mine), **HALF), tmp_path / "results")
    said = refusal(with_added(animals, str(tmp_path / "nothing")), tmp_path)
    assert said.startswith("studies.s.added.affine: there is no folder or file ") and "CLASS/*.png" in said
    twice = HALF | {"scaling": {"methods": ["affine"], "ratios": [2]}}
    said = refusal(with_added(animals, str(mine), **twice), tmp_path)
    assert f"the class cat has 6 images in {mine}, but 12 are added to it (2 of 2 classes" in said
    checks.check_world(with_added(animals, {"path": str(mine), "allow_fewer": True}, **twice), tmp_path)
    (mine / "dog" / "6.png").write_bytes(b"<html>not an image</html>")
    assert f"cannot read {mine}/dog/6.png: Pillow " in refusal(with_added(animals, str(mine), **HALF), tmp_path)
    skipping = {"target": {"reader": "folder", "path": str(animals), "unreadable": "skip"}}
    checks.check_world(with_added(animals, str(mine), **HALF, **skipping), tmp_path / "results")
    (mine / "dog" / "6.png").unlink()
    (mine / "dog").rename(mine / "dogs")
    assert "the class 'dogs' (dogs/0.png), which the target does not have; is it 'dog'?" in refusal(
        with_added(animals, str(mine), **HALF), tmp_path
    )


def test_a_source_in_a_held_out_split_is_refused_before_any_work(animals, tmp_path):
    from augbench.dataset import splits

    mine = fill(tmp_path / "mine", {"cat": 6, "dog": 6})
    raw = with_added(animals, str(mine / "list.csv"), **HALF)
    target = splits.split(raw.studies["s"].target, raw.studies["s"].dataset, raw.studies["s"].seed)
    for split in ("train", "validation", "test"):
        cat = target[(target["split"] == split) & (target["class"] == "cat")].iloc[0]
        sources = {"cat": cat["path"], "dog": ""}
        rows = [f"{key}/{i}.png,{key},{source}" for key, source in sources.items() for i in range(6)]
        (mine / "list.csv").write_text("\n".join(["path,class,source", *rows]))
        if split == "train":
            checks.check_world(raw, tmp_path / "results")
        else:
            said = refusal(raw, tmp_path)
            assert f"affine/cat/0.png was made from {cat['image_id']}, an image of the {split} split" in said


def test_prompts_of_each_class_are_checked_before_any_work(animals, tmp_path):
    file = tmp_path / "prompts.json"
    mine = {"title": "CuPL", "family": "prompting", "start": "noise", "conditioning": str(file)}
    sections = {"target": {"reader": "folder", "path": str(animals)}, "classifier": {"model": "small_cnn"}}
    sections |= {"methods": ["none", "cupl"], "backbone": {"model": "owner/name"}}
    for prompts, sentence in (
        ({"cat": ["a cat"], "Dog": ["a dog"]}, ""),
        ({"cat": ["a cat"]}, "has no prompts of the class 'dog'"),
        (
            {"cat": ["a cat"], "dog": ["a dog"], "catt": ["x"]},
            "prompts of 'catt', which is no class of the target; is it",
        ),
    ):
        file.write_text(json.dumps(prompts))
        raw = config.parse({"methods": METHODS | {"cupl": mine}, "studies": {"s": sections}})
        if sentence:
            said = refusal(raw, tmp_path)
            assert said.startswith(f"studies.s.methods: cupl: {file} ") and sentence in said
        else:
            checks.check_world(raw, tmp_path / "results")


def test_a_script_has_to_be_there(animals, tmp_path):
    raw = with_added(animals, {"script": "examples/afine.py"})
    assert refusal(raw, tmp_path) == "studies.s.added.affine.script: there is no file examples/afine.py"
    checks.check_world(raw, tmp_path / "results", script_file=lambda name: __file__)


def test_weights_in_several_files_and_pickles_are_taken(pipeline):
    sharded(pipeline)
    safetensors(pipeline / "unet" / "diffusion_pytorch_model.2.safetensors")
    file = pipeline / "text_encoder" / "model.safetensors"
    file.rename(file.with_name("pytorch_model.bin"))
    local_files.check_pipeline(pipeline)


@pytest.mark.parametrize(
    "name", ["/no/such", "./sd", "../sd", "~/sd", "a/b/c", "models/", "sd.safetensors", "tests/sd", ""]
)
@pytest.mark.parametrize("section", ["backbone", "clip"])
def test_a_path_to_nothing_is_refused(animals, tmp_path, name, section):
    given = name if section == "backbone" else f"hf_clip:{name}"
    sections = {"backbone": {"model": "owner/name"}} | {section: {"model": given}}
    said = refusal(study(animals, ["none", "simple_prompt"], **sections), tmp_path)
    assert said.startswith(f"studies.s.{section}.model: there is no folder {name}")


def test_a_single_file_is_no_pipeline(animals, tmp_path):
    file = tmp_path / "v1-5.safetensors"
    safetensors(file)
    said = refusal(study(animals, ["none", "simple_prompt"], backbone={"model": str(file)}), tmp_path)
    assert "is a file; give the backbone as a folder" in said


@pytest.mark.parametrize("name", ["CompVis/stable-diffusion-v1-4", "gpt2", "a.b/c_d-e"])
def test_ids_of_the_hub_are_left_to_the_job_that_fetches(name):
    assert not local_files.is_folder(name, "backbone")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ViT-L-14", "'ViT-L/14'"),
        ("vit-b/32", "'ViT-B/32'"),
        ("ViT-L/14@336", "'ViT-L/14@336px'"),
        ("RN-50", "'RN50'"),
        ("ViT-H-14", "'open_clip:ViT-H-14'"),
        ("openclip:ViT-B-32", "'open_clip'"),
        ("open_clip:ViT-B/32", "'ViT-B-32'"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79", "'laion2b_s34b_b79k'"),
        ("open_clip:vit-b-32", "'ViT-B-32'"),
    ],
)
def test_a_misspelt_clip_is_refused_with_the_name_that_was_meant(animals, tmp_path, name, meant):
    said = refusal(study(animals, clip={"model": name}), tmp_path)
    assert said.startswith("studies.s.clip.model: ") and f"did you mean {meant}?" in said


@pytest.mark.middle
def test_the_names_of_clips_are_those_of_the_libraries():
    import clip
    import open_clip

    assert local_files.openai_clips() == clip.available_models()
    for model, checkpoint in open_clip.list_pretrained():
        local_files.check_clip(f"open_clip:{model}/{checkpoint}")
        assert local_files.clip_width(f"open_clip:{model}") == open_clip.get_model_config(model)["embed_dim"]


# --- indices --------------------------------------------------------------------------------------------


def make_index(folder, count=50, width=16, kind="Flat", rows=None, columns=("url", "caption"), form="parquet"):
    import faiss

    vectors = np.random.default_rng(0).normal(size=(max(count, 300), width)).astype(np.float32)
    made = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
    made.train(vectors)
    if "IDMap" in kind:
        made.add_with_ids(vectors[:count], np.arange(count))
    else:
        made.add(vectors[:count])
    (folder / "metadata").mkdir(parents=True)
    faiss.write_index(made, str(folder / "image.index"))
    table = pd.DataFrame({name: ["x"] * (count if rows is None else rows) for name in columns})
    if form == "parquet":
        table.iloc[: len(table) // 2].to_parquet(folder / "metadata" / "0.parquet")
        table.iloc[len(table) // 2 :].to_parquet(folder / "metadata" / "1.parquet")
    elif form == "arrow":
        whole = pa.Table.from_pandas(table)
        with pa.ipc.new_file(str(folder / "metadata" / "0.arrow"), whole.schema) as writer:
            writer.write_table(whole)
    elif form == "hdf5":
        import h5py

        with h5py.File(folder / "metadata.hdf5", "w") as file:
            for name in columns:
                file.create_dataset(f"dataset/{name}", data=table[name].astype("S"))
    return folder


KINDS = ["Flat", "IVF4,Flat", "HNSW8", "PQ4x4", "OPQ4_16,PQ4x4", "IDMap2,Flat", "SQ8", "IVF4,PQ4x4", "Flat,RFlat"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_of_an_index_is_in_its_head(tmp_path, kind):
    assert pool_index.index_shape(make_index(tmp_path, 50, 16, kind)) == (50, 16)


INDICES = {
    "another CLIP's": ({"width": 32}, "has vectors of width 32, but the CLIP ViT-B/32 has width 512"),
    "fewer rows": ({"width": 512, "rows": 30}, "has 50 vectors and 30 rows of metadata"),
    "more rows": ({"width": 512, "rows": 90}, "has 50 vectors and 90 rows of metadata"),
    "no addresses": ({"width": 512, "columns": ("image_path", "caption")}, "has no addresses of its images"),
    "no columns of use": ({"width": 512, "columns": ("similarity",)}, "has no addresses of its images"),
}


@pytest.mark.parametrize("form", ["parquet", "arrow", "hdf5"])
@pytest.mark.parametrize("kind", INDICES)
def test_an_index_that_does_not_fit_is_refused(animals, tmp_path, kind, form):
    made, sentence = INDICES[kind]
    folder = make_index(tmp_path / "index", form=form, **made)
    sections = {"backbone": {"model": "owner/name"}, "clip": {"model": "ViT-B/32"}}
    raw = study(animals, ["none", "retrieval"], pool={"source": "index", "path": str(folder)}, **sections)
    said = refusal(raw, tmp_path)
    assert said.startswith("studies.s.pool.path: ") and sentence in said


@pytest.mark.parametrize("damage", ["empty", "no faiss", "no metadata", "no Parquet"])
def test_a_damaged_index_is_refused(animals, tmp_path, damage):
    folder = make_index(tmp_path / "index", width=512)
    if damage in ("empty", "no faiss"):
        (folder / "image.index").write_bytes(b"" if damage == "empty" else b"<html>not found</html>")
    if damage == "no metadata":
        shutil.rmtree(folder / "metadata")
    if damage == "no Parquet":
        (folder / "metadata" / "1.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    sections = {"backbone": {"model": "owner/name"}, "clip": {"model": "ViT-B/32"}}
    raw = study(animals, ["none", "retrieval"], pool={"source": "index", "path": str(folder)}, **sections)
    expected = {"no metadata": "has no metadata: ", "no Parquet": "1.parquet cannot be read"}
    assert expected.get(damage, "is not a faiss index") in refusal(raw, tmp_path)


def test_an_index_in_several_files_is_accepted(animals, tmp_path):
    """``image.index`` is then a folder, as clip-retrieval writes it for memory-mapped indices."""
    folder = make_index(tmp_path / "index", width=512)
    (folder / "image.index").rename(folder / "populated.index")
    (folder / "image.index").mkdir()
    sections = {"backbone": {"model": "owner/name"}, "clip": {"model": "ViT-B/32"}}
    sections["retrieval"] = {"min_aesthetic": None}
    raw = study(animals, ["none", "retrieval"], pool={"source": "index", "path": str(folder)}, **sections)
    assert "there is no image.index in" in refusal(raw, tmp_path)
    (folder / "populated.index").rename(folder / "image.index" / "populated.index")
    checks.check_world(raw, tmp_path / "results")


def test_captions_are_matched_where_there_are_some(animals, tmp_path):
    sections = {"backbone": {"model": "owner/name"}, "clip": {"model": "ViT-B/32"}}
    sections["retrieval"] = {"min_aesthetic": None}
    for columns in (("url", "title"), ("url", "TEXT")):
        folder = make_index(tmp_path / columns[1], width=512, columns=columns)
        pool = {"source": "index", "path": str(folder)}
        checks.check_world(study(animals, ["none", "retrieval"], pool=pool, **sections), tmp_path / "results")
        raw = study(animals, ["none", "retrieval_captions"], pool=pool, **sections)
        if "title" in columns:
            sentence = f"retrieval_captions matches captions, but {folder} has no column caption or "
            assert sentence in refusal(raw, tmp_path)
        else:
            checks.check_world(raw, tmp_path / "results")


def test_licences_and_faces_are_asked_of_a_pool_that_states_them(animals, tmp_path):
    sections = {"backbone": {"model": "owner/name"}, "clip": {"model": "ViT-B/32"}}
    index = {"source": "index", "path": str(make_index(tmp_path / "plain", width=512))}
    stated = {"source": "index", "path": str(make_index(tmp_path / "all", width=512, columns=("url", "license")))}
    plain, some, blurred = {"min_aesthetic": None}, {"licences": ["CC0"]}, {"blur_faces": True, "min_aesthetic": None}
    for pool, retrieval, sentence in (
        (index | some, plain, "pool.licences: the metadata of .* have no column licence or license or"),
        (index, blurred, "retrieval.blur_faces: the metadata of .* have no column face_bboxes; rename the column"),
    ):
        raw = study(animals, ["none", "retrieval"], pool=pool, retrieval=retrieval, **sections)
        assert re.search(sentence, refusal(raw, tmp_path))
    raw = study(animals, ["none", "retrieval"], pool=stated | some, retrieval=plain, **sections)
    checks.check_world(raw, tmp_path / "results")


# --- the environment's proxy, and what checks cost ------------------------------------------------------


def test_a_proxy_is_named_that_is_not_used_and_one_that_is_not_there(animals, tmp_path, monkeypatch):
    folder = make_index(tmp_path / "index", width=512)
    sections = {"backbone": {"model": "owner/name"}, "clip": {"model": "ViT-B/32"}}
    sections["pool"] = {"source": "index", "path": str(folder)}
    unscored = {"min_aesthetic": None}
    used = study(animals, ["none", "retrieval"], retrieval=unscored | {"proxy": "environment"}, **sections)
    unused = study(animals, ["none", "retrieval"], retrieval=unscored, **sections)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert "neither http_proxy nor https_proxy" in refusal(used, tmp_path)
    assert checks.remarks(unused) == []
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert checks.remarks(used) == []
    (said,) = checks.remarks(unused)
    assert "without the proxy of the environment (https_proxy)" in said and "{proxy: environment}" in said
    monkeypatch.setenv("https_proxy", "socks5://proxy:3128")
    assert "only an http proxy can be used" in refusal(used, tmp_path)


@pytest.mark.middle
def test_checks_load_no_model_and_no_torch(animals, pipeline, tmp_path):
    sections = {"backbone": {"model": str(pipeline)}, "clip": {"model": "open_clip:ViT-B-32"}}
    sections["pool"] = {"source": "index", "path": str(make_index(tmp_path / "index", width=512))}
    sections["retrieval"] = {"min_aesthetic": None}
    raw = {"methods": ["none", "retrieval"], "target": {"reader": "folder", "path": str(animals)}} | sections
    code = (
        "import json, sys; from pathlib import Path\n"
        "from augbench.jobs import checks; from augbench.study import config\n"
        f"raw = json.loads({json.dumps(json.dumps({'methods': METHODS, 'studies': {'s': raw}}))})\n"
        f"checks.check_world(config.parse(raw), Path({str(tmp_path / 'results')!r}))\n"
        "checks.remarks(config.parse(raw))\n"
        "print(sorted({'torch', 'transformers', 'diffusers', 'open_clip', 'faiss', 'sklearn'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
