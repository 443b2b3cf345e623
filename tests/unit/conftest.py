"""A tiny world of real parts: pool, CLIP, diffusion pipeline and safety checker, hardly trained."""

from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    from augbench import clip_training, diffusion_training, digits

    folder = tmp_path_factory.mktemp("world")
    made = SimpleNamespace(
        folder=folder,
        shard=folder / "web.tar",
        web=folder / "web.parquet",
        planted=folder / "planted.parquet",
        clip=folder / "clip",
        safety=folder / "safety",
        backbone=folder / "backbone",
    )
    facts = {"letters": 0.1, "handwritten": 0.3, "unsafe": 0.2, "unaesthetic": 0.2, "dead": 0.2}
    digits.write_web(
        made.shard,
        made.web,
        made.planted,
        seed=3,
        test=100,
        web_scans=300,
        web_pictures=300,
        copies=10,
        near_duplicates=20,
        **facts,
    )
    shards = [made.shard]
    clip_training.train(
        shards,
        made.clip,
        seed=3,
        image_size=32,
        patch_size=8,
        width=32,
        layers=1,
        heads=2,
        projection=16,
        text_tokens=16,
        steps=60,
        batch_size=64,
        learning_rate=3e-3,
        threads=1,
    )
    common = {"seed": 3, "image_size": 32, "learning_rate": 2e-3, "threads": 1}
    diffusion_training.train_vae(
        shards, folder / "vae", channels=[8, 8, 8], latent_channels=4, steps=3, batch_size=16, **common
    )
    diffusion_training.train_safety_checker(shards, made.clip, made.safety, seed=3, unsafe_words=["hazard"], threads=1)
    diffusion_training.train_unet(
        shards,
        folder / "vae",
        made.clip,
        made.safety,
        made.backbone,
        channels=[16, 16],
        text_tokens=20,
        steps=3,
        batch_size=16,
        **common,
    )
    return made
