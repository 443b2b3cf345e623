"""Blurs faces in pictures, where a pool says where they are."""

import json
import math
from collections.abc import Sequence

from augbench.core.files import BadInput

BLUR = 0.1  # standard deviation of the blur, of a box's diagonal (Yang et al. 2022, on ImageNet)
SHARES = 2  # a number above is no share of a side: detectors draw boxes that end a little outside the picture


def boxes(text: str) -> list[tuple[float, ...]]:
    """The boxes that a cell of the column ``face_bboxes`` holds, as DataComp has them: JSON, a list of left, top,
    right, bottom, shares of the picture's sides. Raises BadInput for anything else."""
    rows: list[tuple[float, ...]]
    try:
        rows = [tuple(map(float, box)) for box in json.loads(text)]
    except (ValueError, TypeError):
        rows = [()]
    if not all(len(row) == 4 and all(math.isfinite(x) and abs(x) <= SHARES for x in row) for row in rows):
        raise BadInput(
            f"face_bboxes of the pool's metadata holds {text[:80]!r}, not boxes [[left, top, right, bottom], ...] in "
            "shares of the picture's sides, 0 to 1; leave out `retrieval: {blur_faces: true}`, or mend the column"
        )
    return rows


def blurred(picture, areas: Sequence[tuple[float, ...]]):
    """An RGB picture with these areas blurred, and no pixel changed elsewhere."""
    from PIL import ImageFilter

    picture = picture.copy()
    width, height = picture.size
    for left, top, right, bottom in areas:
        x0, y0 = max(0, math.floor(left * width)), max(0, math.floor(top * height))
        x1, y1 = min(width, math.ceil(right * width)), min(height, math.ceil(bottom * height))
        if x0 < x1 and y0 < y1:
            radius = BLUR * math.hypot(x1 - x0, y1 - y0)
            face = picture.crop((x0, y0, x1, y1)).filter(ImageFilter.GaussianBlur(max(radius, 1)))
            picture.paste(face, (x0, y0))
    return picture
