"""A tiny world of real parts, hardly trained: a pool, CLIP, a diffusion pipeline and its safety checker.

Making it takes most of a minute, so it is kept between runs in pytest's cache folder, under a digest of everything that
it is made from. Tests only read it.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from shared import locked

from augbench.core import code_digest
from augbench.study.sections.digits import Digits
from augbench.study.sections.models import BackboneTraining, ClipTraining

ROOT = Path(__file__).parents[2]
SEED = 3
PLANTED = {"letters": 0.1, "handwritten": 0.3, "unsafe": 0.2, "unaesthetic": 0.2, "dead": 0.2}
COUNTS = {"test": 100, "web_scans": 300, "web_pictures": 300, "copies": 10, "near_duplicates": 20}
CLIP = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "projection": 16, "text_tokens": 16}

BACKBONE = BackboneTraining(
    image_size=32,
    vae_channels=[8, 8, 8],
    vae_steps=3,
    vae_batch_size=16,
    vae_learning_rate=2e-3,
    unet_channels=[16, 16],
    unet_steps=3,
    batch_size=16,
    learning_rate=2e-3,
    text_tokens=20,
)


@dataclass(frozen=True)
class World:
    folder: Path

    def __getattr__(self, name: str) -> Path:
        """``clip``, ``safety`` and ``backbone`` are folders; ``shard``, ``web`` and ``planted`` the pool's files."""
        files = {"shard": "web.tar", "web": "web.parquet", "planted": "planted.parquet"}
        return self.folder / files.get(name, name)


def make(folder: Path) -> None:
    from augbench.digits import data
    from augbench.models import train_clip, train_diffusion

    world = World(folder)
    data.write_web(world.shard, world.web, world.planted, Digits(**COUNTS, **PLANTED), seed=SEED)
    shards = [world.shard]
    clip = ClipTraining(steps=60, batch_size=64, learning_rate=3e-3, **CLIP)
    train_clip.train(shards, world.clip, clip, seed=SEED)
    train_diffusion.train_safety_checker(
        shards, world.clip, world.safety, unsafe_words=["hazard"], seed=SEED, threads=1
    )
    parts = [folder / "vae", world.clip, world.safety]
    train_diffusion.train_vae(shards, folder / "vae", BACKBONE, seed=SEED)
    train_diffusion.train_unet(shards, *parts, world.backbone, BACKBONE, seed=SEED)


def digest(cache: Path) -> str:
    """Of what the world is made from, and of where it lies: its image table names the shard by its whole path."""
    total = hashlib.sha256(code_digest.digest(__file__).encode() + bytes(cache))
    total.update((ROOT / "requirements.lock").read_bytes())
    return total.hexdigest()[:16]


def kept_in(cache: Path) -> World:
    """The world, made where the cache has none of this digest; processes that want it at once wait for the first."""
    folder = cache / digest(cache)
    with locked(cache / "lock"):
        if not (folder / "complete").exists():
            for old in cache.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            folder.mkdir()
            make(folder)
            (folder / "complete").touch()
    return World(folder)
