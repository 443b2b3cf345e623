"""Diffusion pipelines of random weights and pictures of two classes, for tests and benchmarks to which it does not
matter what a model has learned."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from augbench import images
from augbench.core.files import whole, write_csv

PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}  # of v1.4, as published
VOCABULARY = 49_408  # CLIP's
SCHEDULER = {  # as published with Stable Diffusion v1.4; this scheduler has no clip_sample
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
CLASSES = [{"class": "three", "lemmas": "three, trey"}, {"class": "six", "lemmas": "six, half a dozen"}]


def write(folder: Path, size: str) -> None:
    """A pipeline of random weights: ``v1.4``, Stable Diffusion's configuration, or ``tiny``, the digits study's.

    On a GPU, where there is one, random numbers come fast. Its safety checker never fires.
    """
    with whole(folder) as temporary, torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(0)
        _pipeline(temporary, size == "v1.4").save_pretrained(temporary)


def _pipeline(folder: Path, full: bool):
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    width = 768 if full else 96
    text = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    text |= {"num_hidden_layers": 12 if full else 2, "num_attention_heads": 12 if full else 3}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision |= {"image_size": 224, "patch_size": 14, "projection_dim": 768}
    if not full:
        vision = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 3}
        vision |= {"image_size": 32, "patch_size": 8, "projection_dim": 64}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=vision, projection_dim=vision["projection_dim"], attn_implementation="eager")
    )
    for weights in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        weights.data.fill_(2.0)  # a cosine never reaches it
    write_tokenizer(folder / "tokenizer", 77 if full else 20)
    side = {"height": vision["image_size"], "width": vision["image_size"]}
    return StableDiffusionPipeline(
        vae=_vae(full),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=_unet(full, width),
        scheduler=PNDMScheduler(**SCHEDULER),
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": vision["image_size"]}, crop_size=side),
    )


def _unet(full: bool, width: int):
    from diffusers import UNet2DConditionModel

    channels = (320, 640, 1280, 1280) if full else (48, 64)
    return UNet2DConditionModel(
        sample_size=64 if full else 8,
        block_out_channels=channels,
        down_block_types=["CrossAttnDownBlock2D"] * (len(channels) - 1) + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (len(channels) - 1),
        layers_per_block=2 if full else 1,
        attention_head_dim=8 if full else 2,
        norm_num_groups=32 if full else 16,
        cross_attention_dim=width,
    )


def _vae(full: bool):
    from diffusers import AutoencoderKL

    channels = (128, 256, 512, 512) if full else (16, 32, 32)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        layers_per_block=2 if full else 1,
        latent_channels=4,
        norm_num_groups=32 if full else 8,
        sample_size=512 if full else 32,
    )


def write_tokenizer(folder: str | Path, length: int) -> None:
    """A tokenizer in CLIP's files and of its size, whose merges are pairs of letters in any order: CLIP's own come with
    open_clip, which a machine that only tests may lack."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    count = VOCABULARY - 2 * len(letters) - 2
    merges = [(first, f"{second}</w>") for first in letters for second in letters][:count]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    CLIPTokenizer.from_pretrained(folder, model_max_length=length).save_pretrained(folder)


def parameters(folder: Path) -> dict[str, int]:
    """How many parameters the parts of a pipeline have."""
    from safetensors import safe_open

    counts = {}
    for part in PARAMETERS:
        with safe_open(next((folder / part).glob("*.safetensors")), "pt") as file:
            counts[part] = sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118
    return counts


def write_pictures(folder: Path, side: int, count: int) -> pd.DataFrame:
    """An image table of ``count`` smooth pictures with some noise, of the two classes by turns."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([side, count])
    rows = []
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
        pixels = (pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        rows.append({"image_id": f"p{i}", "class": CLASSES[i % 2]["class"], "path": str(path)})
    return images.table(rows)


def write_classes(path: Path) -> None:
    """The class table of the two classes."""
    write_csv(path, pd.DataFrame(CLASSES).assign(train=1, excluded=""))


def roomy_folder(gigabytes: float) -> Path:
    """Where so much can be written: in memory where there is room for it, else where temporary files go."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > gigabytes * 1e9
    return memory if has_room else Path(tempfile.gettempdir())
