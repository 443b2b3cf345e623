"""Latents against a plain loop over diffusers' autoencoder, and what a kill costs."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file

from augbench import images
from augbench.diffusion import latents
from augbench.models import backbones

NAMES = ("train", "validation")


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    return AutoencoderKL(**blocks, block_out_channels=[8, 8], latent_channels=2, norm_num_groups=4).eval()


@pytest.fixture(scope="module")
def target(vae, tmp_path_factory):
    """A folder with a pipeline's autoencoder and the tables of 40 training and 21 validation images."""
    folder = tmp_path_factory.mktemp("latents")
    vae.save_pretrained(folder / "pipeline" / "vae")
    random = np.random.default_rng(0)
    for name, count in zip(NAMES, (40, 21), strict=True):
        rows = [
            {"image_id": f"{name}-{i}", "class": "a", "path": str(folder / f"{name}-{i}.png")} for i in range(count)
        ]
        for row in rows:
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(row["path"])
        images.write(folder / f"{name}.parquet", images.table(rows))
    return folder


def encode(target, folder, **changes):
    paths = {target / f"{name}.parquet": folder / f"{name}.safetensors" for name in NAMES}
    latents.encode(target / "pipeline", paths, **{"image_size": 16, "mirrored": True, "threads": 1} | changes)
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.safetensors" for name in NAMES]
    return [path.read_bytes() for path in paths.values()]


@pytest.fixture(scope="module")
def whole(target, tmp_path_factory):
    return encode(target, tmp_path_factory.mktemp("whole"))


def test_bytes_are_those_of_a_plain_loop_and_safetensors(vae, target, whole, tmp_path):
    for name, content in zip(NAMES, whole, strict=True):
        table = images.read(target / f"{name}.parquet")
        pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in table["path"]]))
        tensors = {"parameters": pixels, "mirrored": pixels.flip(2)}
        with torch.inference_mode():
            for kind, each in tensors.items():
                batches = [part.permute(0, 3, 1, 2).float().div(127.5).sub(1) for part in each.split(16)]
                tensors[kind] = torch.cat([vae.encode(batch).latent_dist.parameters for batch in batches]).contiguous()
        ids = torch.tensor(list(json.dumps(list(table["image_id"])).encode()), dtype=torch.uint8)
        save_file(tensors | {"image_ids": ids}, tmp_path / "expected")
        assert content == (tmp_path / "expected").read_bytes()


class Killed(BaseException):
    """Not an error: nothing tidies up after it."""


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that are encoded, and what kills a job at one of them; there is a state after each."""
    monkeypatch.setattr(latents, "SAVED", latents.BATCH)
    original, sizes, limit = latents._posteriors, [], []

    def counted(vae, squares, *rest):
        sizes.append(len(squares))
        if limit and len(sizes) == limit[0]:
            raise Killed
        return original(vae, squares, *rest)

    def killed_at(number, run):
        limit.append(number)
        with pytest.raises(Killed):
            run()
        limit.clear()
        sizes.clear()

    monkeypatch.setattr(latents, "_posteriors", counted)
    return SimpleNamespace(sizes=sizes, killed_at=killed_at)


@pytest.mark.parametrize(("number", "again"), [(1, [16, 16, 8, 16, 5]), (2, [16, 8, 16, 5]), (4, [16, 5]), (5, [5])])
def test_a_killed_job_goes_on_after_its_last_state(target, whole, tmp_path, batches, number, again):
    """Also where one file is whole already: a job that fails loses its outputs, all of them."""
    batches.killed_at(2 * number, lambda: encode(target, tmp_path))  # the mirrored half of a batch
    assert not list(tmp_path.glob("*.safetensors"))
    assert encode(target, tmp_path) == whole
    assert batches.sizes[::2] == again


@pytest.mark.parametrize("change", ["weights", "image", "image_size"])
def test_a_state_of_other_images_or_another_encoder_is_not_gone_on_from(target, whole, tmp_path, batches, change):
    files = {"weights": "pipeline/vae/diffusion_pytorch_model.safetensors", "image": "train-3.png"}
    path = target / files.get(change, "train.parquet")
    times = path.stat()
    os.utime(path, ns=(1, 1))
    batches.killed_at(6, lambda: encode(target, tmp_path, **({} if change in files else {"image_size": 8})))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert encode(target, tmp_path) == whole
    assert batches.sizes[::2] == [16, 16, 8, 16, 5]


def test_only_the_validation_images_that_the_loss_is_taken_over_are_encoded(target, whole, tmp_path, batches):
    table = images.read(target / "validation.parquet")
    encode(target, tmp_path, at_most={target / "validation.parquet": 8})
    chosen = latents.sample(table, 8)
    assert list(chosen["image_id"]) == [f"validation-{i}" for i in range(0, 21, 3)]
    some = latents.read(tmp_path / "validation.safetensors", chosen)
    (tmp_path / "all.safetensors").write_bytes(whole[1])
    every = latents.read(tmp_path / "all.safetensors", table)
    assert torch.allclose(some["parameters"], every["parameters"][::3], atol=1e-5)
    assert (tmp_path / "train.safetensors").read_bytes() == whole[0]
    assert [len(latents.sample(table, most)) for most in (1, 20, 21, 5000)] == [1, 11, 21, 21]


def test_start_images_are_scaled_means(whole, target, tmp_path):
    (tmp_path / "train.safetensors").write_bytes(whole[0])
    table = images.read(target / "train.parquet")
    parameters = latents.read(tmp_path / "train.safetensors", table)["parameters"]
    start = latents.start_images(tmp_path / "train.safetensors", table, 0.5)
    assert torch.equal(start.latents[[3, 39, 3]], parameters[[3, 39, 3], :2] * 0.5)
    assert start.positions == {"a": list(range(40))}


def test_an_encoder_that_float16_is_too_small_for_is_asked_again_in_float32():
    """Of the image alone whose numbers are none, and afterwards it is in half precision again."""
    asked = []

    class Doubling(torch.nn.Linear):
        dtype = property(lambda self: self.weight.dtype)

        def forward(self, values):
            asked.append((len(values), values.dtype))
            return super().forward(values)

    model = Doubling(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2)
    model.half()
    values = torch.tensor([[1.0], [40_000.0], [3.0]], dtype=torch.float16)
    outputs = backbones.in_enough_precision(model, lambda part: model(part) / 4, values)
    assert outputs.tolist() == [[0.5], [20_000.0], [1.5]]
    assert asked == [(3, torch.float16), (1, torch.float32)]
    assert model.weight.dtype == torch.float16
