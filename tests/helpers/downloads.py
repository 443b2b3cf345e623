"""A picture that is fit to be downloaded, and limits that suit loopback."""

import io

import numpy as np
from PIL import Image

from augbench.study.sections.retrieval import Retrieval

SETTINGS = Retrieval(timeout=2, retries=1, max_bytes=200_000, download_threads=8, allowed_networks=["127.0.0.1/32"])


def picture(kind="JPEG", mode="RGB", size=(40, 40)):
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


GOOD = picture()
