"""What jobs cost: memory, run time and disk from images, steps and epochs, by the paper's GPU-hours."""

import math
from collections.abc import Collection

from augbench.study.budgets import USUAL_EPOCHS
from augbench.study.parts import Part, gpu_hours

# What a job asks for at most, in every attempt: what clusters grant. One whose work takes longer is begun again at the
# limit, and goes on from its state.
MOST_MINUTES = 72 * 60
MOST_MEGABYTES = 128_000

HOUR = 3600
SIDE, CROP = 512, 224  # pixels a side of the paper's diffusion model and classifier
TARGET = 126_861  # training images of 10% ImageNet (section 3)
EPOCHS = 40  # of a fine-tuning, at most (section 3.1)

# Seconds of one GPU, from the GPU-hours of section 3.1. The paper does not say after how many steps or epochs its
# jobs ended, so these assume the sampler's 50, the fine-tuner's 40 and, for five classifiers, 100.
PER_SAMPLING_STEP = 867 * HOUR / (390 * 1000 * 50)  # of an image, on a T4
PER_CLASSIFIED_IMAGE = 160 * HOUR / (5 * 2 * TARGET * USUAL_EPOCHS)  # and epoch, on a T4
PER_RETRIEVED_IMAGE = 28.5 * HOUR / (130 * 1000)  # on a CPU: searched, downloaded, judged
# Estimates beside the paper's: floating-point operations, and times measured on a slow core.
PER_JUDGED_IMAGE = 2.0  # on a core, by a network of the size of ViT-L/14 (0.16 TFLOP)
PER_JUDGED_IMAGE_ON_GPU = 1 / 40  # on a T4; decoding takes the most
PER_ENCODED_IMAGE = 0.1  # on a T4, by the VAE (1.12 TFLOP at 512 pixels)
PER_HASHED_IMAGE = 1 / 340  # on a core: decoded and resized
PER_SCORED_IMAGE = 1 / 100  # by a classifier or CLIP on a T4, which waits for the decoder
PER_COMPARED_PAIR = 1 / 8e8  # of hashes, on a core
PER_COMPARED_VECTOR = 1 / 1e9  # of embeddings, on a T4
PER_METRICS = 60  # of a method, on a core: the metrics of 5,000 images
PER_EMBEDDED_IMAGE = 1 / 20  # on a core without a GPU; ViT-L/14 takes more, a GPU much less
PER_SCANNED_ROW = 1e-5  # of embeddings, to be read from a disk
PER_SCANNED_PAIR = 1e-7  # of an embedding and a query, on a slow core
PER_INDEXED_CAPTION = 1 / 30_000  # of a full-text index; those of twelve words take a sixth (benchmarks/retrieval.py)
PER_LEARNT_IMAGE = 3e-3  # of 32 pixels, when a small CLIP or diffusion model is trained on a slow core

# Of jobs that hold tables: megabytes without a row (Python, its libraries, models), and bytes for each distinct row.
# Measured by benchmarks/rows.py, which also says what the rows are, and rounded up by a third or more.
TABLES = {
    "hash_added": (500, 750),
    "audit": (500, 400),
    "domain_gap": (6000, 500),
    "retrieve": (5000, 400),
    "score": (5000, 8),
    "filter_images": (500, 1000),
    "resample": (500, 300),
    "classify": (1000, 600),
    "classifier_process": (500, 120),  # each of a training's, beside the job that starts them
    "summary": (500, 100),
    "study_page": (1000, 900),
}
LIGHT = 1000  # megabytes up to which a table's job may run where Snakemake itself does, on a login node for instance
# Bytes of encoded pictures, per pixel, by quality; a PNG's has no quality. Means of 34 photographs; of PNG, of those in
# which every pixel is sharp.
BYTES_PER_PIXEL = {
    "png": {100: 1.5},
    "jpeg": {50: 0.10, 75: 0.15, 85: 0.20, 90: 0.25, 95: 0.36, 100: 0.68},
    "webp": {50: 0.07, 75: 0.10, 85: 0.15, 90: 0.20, 95: 0.29, 100: 0.40},
}
SHARD_BYTES = 4 * 512  # of an image in a shard beside its own: two texts, and heads of a tar's members
DOWNLOADED_BYTES = 120e3  # of a picture of the web, as it comes
ROW_BYTES = 150  # of an image in an image table
CAPTION_BYTES = 100  # of a caption in a full-text index, which has the places of its words alone


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


def scanning(rows: float, queries: int) -> float:
    """Seconds to compare published embeddings with queries, on one core."""
    return rows * (PER_SCANNED_ROW + queries * PER_SCANNED_PAIR)


def indexing(captions: float) -> float:
    """Seconds to put captions into a full-text index, on one core."""
    return captions * PER_INDEXED_CAPTION


def judging(images: float, networks: int, threads: int, gpu: bool) -> float:
    """Seconds to judge pictures by so many networks of the size of ViT-L/14."""
    return images * networks * (PER_JUDGED_IMAGE_ON_GPU if gpu else PER_JUDGED_IMAGE / threads)


def encoding(images: float, side: int) -> float:
    """GPU-seconds (T4) to encode images of ``side`` pixels as latents."""
    return images * PER_ENCODED_IMAGE * (side / SIDE) ** 2


def scoring(images: float) -> float:
    """GPU-seconds (T4) to classify or embed images once."""
    return images * PER_SCORED_IMAGE


def hashing(images: float) -> float:
    """Seconds to hash images on one core."""
    return images * PER_HASHED_IMAGE


def embedding(images: float) -> float:
    """Seconds to embed images for the audit's second detector."""
    return images * PER_EMBEDDED_IMAGE


def minutes(seconds: float, attempt: int = 1, least: int = 30) -> int:
    """Run time to ask a scheduler for: twice what the work should take, more with each attempt, up to the ceiling."""
    return min(attempt * (least + math.ceil(2 * seconds / 60)), MOST_MINUTES)


def megabytes(base: float, attempt: int = 1) -> int:
    """Memory to ask a scheduler for: more with each attempt, up to the ceiling."""
    return min(attempt * math.ceil(base), MOST_MEGABYTES)


def tables(rule: str, rows: float) -> float:
    """Megabytes of a job that holds tables of so many distinct rows."""
    least, per_row = TABLES[rule]
    return least + per_row * rows / 1e6


def classifier_tables(rows: float, processes: int) -> float:
    """Megabytes of a job that trains classifiers on so many images in several processes."""
    return tables("classify", rows) + processes * tables("classifier_process", rows)


def pictures(images: float, side: int, kind: str, quality: int) -> float:
    """Bytes of so many images of ``side`` pixels in a shard, of the format ``kind``: png, jpeg or webp."""
    known = sorted(BYTES_PER_PIXEL[kind].items())
    below = max([pair for pair in known if pair[0] <= quality], default=known[0])
    above = min([pair for pair in known if pair[0] >= quality], default=known[-1])
    share = (quality - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0
    return images * (side**2 * (below[1] + share * (above[1] - below[1])) + SHARD_BYTES)
