"""Images of each family's real classes, tiny: from a folder to a shard with its image table, however jobs are cut."""

import family_pipelines
import numpy as np
import pandas as pd
import pytest
import torch
from sampled import CLASSES, METHOD, changed

from augbench import images
from augbench.core.files import write_csv
from augbench.core.seeds import torch_generator
from augbench.diffusion import sampling
from augbench.diffusion.pipeline_sampler import PipelineSampler
from augbench.diffusion.sampling_plan import Share
from augbench.models.backbones import read_pipeline, resolve
from augbench.study.sections.diffusion import Generate

pytestmark = pytest.mark.middle  # models of the real classes, tiny, are made and loaded many times
SETTINGS = Generate(image_size=family_pipelines.SIDE, steps=2, batch_size=3, times=2)
BOUND = 1  # grey levels by which a picture of a batch may differ from the same one drawn alone
KINDS = list(family_pipelines.PIPELINES)


@pytest.fixture(scope="module", params=KINDS)
def backbone(request, tmp_path_factory):
    """A tiny pipeline of each family, as a study's job finds it."""
    folder = tmp_path_factory.mktemp(request.param)
    local = family_pipelines.write(folder / "local", request.param)
    (local / "README.md").write_text("---\nlicense: openrail++\n---\n")
    resolve(str(local), folder / "backbone", has_checker=False)
    return folder / "backbone"


@pytest.fixture(scope="module")
def sampler(backbone):
    return PipelineSampler(backbone, METHOD, SETTINGS)


def rows(count):
    return [
        {"class": "three", "index": i, "number": 0, "prompt": "A photo of three, trey."[: 23 - 3 * i], "seed": 7 + i}
        for i in range(count)
    ]


def generate(backbone, folder, parts, settings=SETTINGS):
    write_csv(folder / "classes.csv", pd.DataFrame(CLASSES).assign(train=1, excluded=""))
    inputs = sampling.GenerateInputs.model_validate({"backbone": backbone, "classes": folder / "classes.csv"})
    for part in range(parts):
        share = Share("simple_prompt", "base", part, parts, ratio=1, times=2)
        sampling.generate(inputs, share, METHOD, settings, folder / f"{part}.tar", folder / f"{part}.parquet", seed=1)
    return images.read(*(folder / f"{part}.parquet" for part in range(parts)))


def test_jobs_write_the_same_bytes_however_they_are_cut_with_the_models_origin(backbone, tmp_path):
    (tmp_path / "cut").mkdir()
    whole, cut = generate(backbone, tmp_path, 1), generate(backbone, tmp_path / "cut", 2)
    assert list(whole["image_id"]) == [f"simple_prompt/base/{key}-0000{i}" for key in ("three", "five") for i in (0, 1)]
    bytes_of = [{row.image_id: images.load_bytes(row) for row in table.itertuples()} for table in (whole, cut)]
    assert bytes_of[0] == bytes_of[1]
    assert len(set(bytes_of[0].values())) == 4
    assert set(whole["model"]) == {str(backbone.parent / "local")}
    assert set(whole["licence"]) == {"openrail++"}
    assert images.load(whole.iloc[0]).size == (family_pipelines.SIDE,) * 2


def test_an_image_hardly_depends_on_its_batch(sampler):
    planned = rows(4)
    with torch.inference_mode():
        together = sampler.denoise(planned)
        alone = [sampler.denoise([row])[0] for row in planned]
        other = sampler.denoise([planned[0] | {"seed": 99}])[0]
    difference = [np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(together, alone, strict=True)]
    assert max(difference) <= BOUND
    assert np.abs(np.asarray(together[0], int) - np.asarray(other, int)).max() > 9


def test_pictures_are_those_of_the_pipelines_own_call(backbone, sampler):
    (row,) = rows(1)
    pipeline = read_pipeline(backbone)
    pipeline.set_progress_bar_config(disable=True)
    more = {"use_resolution_binning": False} if backbone.parent.name[:4] in ("sana", "pixa") else {}
    reference = pipeline(
        row["prompt"], height=32, width=32, num_inference_steps=2, generator=torch_generator(row["seed"]), **more
    ).images[0]
    with torch.inference_mode():
        assert np.array_equal(np.asarray(sampler.denoise([row])[0]), np.asarray(reference))


def test_guidance_and_negative_prompts_change_pictures(backbone, sampler):
    (row,) = rows(1)
    changes = [{"guidance": 9.0}, {"steps": 3}]
    if sampler.family.takes_negative_prompt:
        changes.append({"negative_prompt": "a printed five"})
    with torch.inference_mode():
        pictures = [np.asarray(sampler.denoise([row])[0]).tobytes()]
        for change in changes:
            sampler.settings = changed(SETTINGS, **change)
            pictures.append(np.asarray(sampler.denoise([row])[0]).tobytes())
    sampler.settings = SETTINGS
    assert len(set(pictures)) == len(pictures)


def test_numbers_that_are_none_are_named(backbone):
    sampler = PipelineSampler(backbone, METHOD, SETTINGS)
    next(sampler.pipeline.vae.decoder.parameters()).data.fill_(torch.nan)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="image 0 of class three"):
        sampler.denoise(rows(1))


def test_a_method_that_the_family_cannot_have_is_refused(backbone):
    boomerang = changed(METHOD, conditioning=None, start="image")
    with pytest.raises(ValueError, match="this method begins otherwise than from noise"):
        PipelineSampler(backbone, boomerang, SETTINGS)
