"""What jobs cost: memory and run time from images, steps and epochs, by the paper's GPU-hours."""

import math
from collections.abc import Collection

from augbench.study.parts import Part, gpu_hours

HOUR = 3600
SIDE, CROP = 512, 224  # pixels a side of the paper's diffusion model and classifier
TARGET = 126_861  # training images of 10% ImageNet (section 3)
EPOCHS = 40  # of a fine-tuning, at most (section 3.1)

# Seconds of one GPU, from the GPU-hours of section 3.1. The paper does not say after how many steps or epochs its
# jobs ended, so these assume the sampler's 50, the fine-tuner's 40 and, for five classifiers, 100.
PER_SAMPLING_STEP = 867 * HOUR / (390 * 1000 * 50)  # of an image, on a T4
PER_CLASSIFIED_IMAGE = 160 * HOUR / (5 * 2 * TARGET * 100)  # and epoch, on a T4
PER_RETRIEVED_IMAGE = 28.5 * HOUR / (130 * 1000)  # on a CPU: searched, downloaded, judged
PER_HASHED_IMAGE = 1 / 340  # on a core: decoded and resized
PER_EMBEDDED_IMAGE = 1 / 20  # on a core without a GPU; ViT-L/14 takes more, a GPU much less
PER_LEARNT_IMAGE = 3e-3  # of 32 pixels, when a small CLIP or diffusion model is trained on a slow core

# Of jobs that hold tables: megabytes without a row (of Python and its libraries, of a model), and bytes for each.
# Measured by benchmarks/rows.py.
TABLES = {
    "hash_added": (600, 500),
    "audit": (600, 500),
    "domain_gap": (4000, 500),
    "retrieve": (4000, 400),
    "resample": (600, 500),
    "classify": (1000, 300),
    "summary": (600, 200),
    "study_page": (1000, 200),
}

LATENT_BYTES = 2 * 4 * 4 / 64  # per pixel of an image: mean and log-variance of four channels, float32


def sampling(images: float, steps: int, side: int) -> float:
    """GPU-seconds to generate images of ``side`` pixels."""
    return images * steps * PER_SAMPLING_STEP * (side / SIDE) ** 2


def finetuning(images: float, epochs: int, side: int, trained: Collection[Part]) -> float:
    """GPU-seconds (V100) to fine-tune the parts ``trained`` on images of ``side`` pixels."""
    per_image_and_epoch = gpu_hours(trained) * HOUR / (TARGET * EPOCHS)
    return images * epochs * per_image_and_epoch * (side / SIDE) ** 2


def classifier(images: float, epochs: int, side: int) -> float:
    """GPU-seconds to train a classifier on crops of ``side`` pixels, validation included."""
    return images * epochs * PER_CLASSIFIED_IMAGE * (side / CROP) ** 2


def training(images: float, side: int) -> float:
    """Seconds to train a small model of one's own on so many images of ``side`` pixels, repetitions counted."""
    return images * PER_LEARNT_IMAGE * (side / 32) ** 2


def retrieval(images: float) -> float:
    """Seconds to retrieve images; the web, not the machine, is what takes them."""
    return images * PER_RETRIEVED_IMAGE


def hashing(images: float) -> float:
    """Seconds to hash images on one core."""
    return images * PER_HASHED_IMAGE


def embedding(images: float) -> float:
    """Seconds to embed images for the audit's second detector."""
    return images * PER_EMBEDDED_IMAGE


def minutes(seconds: float, attempt: int = 1, least: int = 30) -> int:
    """Run time to ask a scheduler for: twice what the work should take, more with each attempt."""
    return attempt * (least + math.ceil(2 * seconds / 60))


def megabytes(base: int, attempt: int = 1, *, bytes: float = 0) -> int:
    """Memory to ask a scheduler for: of a process that does nothing yet, and of its data; more with each attempt."""
    return attempt * (base + math.ceil(bytes / 1e6))


def latents(images: float, side: int) -> float:
    """Bytes of the posteriors of so many images of ``side`` pixels."""
    return images * side**2 * LATENT_BYTES


def tables(rule: str, rows: float, processes: int = 1) -> float:
    """Megabytes of a job that holds tables of so many distinct rows, in each of its processes."""
    least, per_row = TABLES[rule]
    return processes * (least + per_row * rows / 1e6)
