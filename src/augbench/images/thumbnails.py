"""Small pictures for pages: images as data URIs whose bytes are bounded."""

import base64
import io

from augbench import images

THUMBNAIL = 96  # pixels, longer side
LOSSLESS = 48  # pixels, longer side: images up to this size stay as they are
QUALITIES = (82, 60, 40, 20)  # of a JPEG, the next where the one before is too large


def thumbnail(row, text: str, side: int = THUMBNAIL, limit: int = 1 << 20) -> dict:
    """A small picture of a row of an image table: ``src`` (data URI), ``alt``, ``small`` and ``image_id``.

    ``limit`` is the size in bytes, before Base64, that is kept to by a lower quality. ``src`` is None for an image
    that cannot be read.
    """
    facts = {"alt": text, "image_id": row.image_id}
    try:
        picture = images.load(row)
    except (OSError, ValueError):
        return facts | {"src": None, "alt": f"{text} (cannot be read)", "small": False}
    return facts | encoded(picture, side, limit)


def encoded(picture, side: int = THUMBNAIL, limit: int = 1 << 20) -> dict:
    """``src`` and ``small`` of an RGB ``PIL.Image``, see :func:`thumbnail`."""
    small = max(picture.size) <= LOSSLESS
    picture.thumbnail((side, side))
    options = [("PNG", {"optimize": True})] if small else []
    for kind, settings in options + [("JPEG", {"quality": quality}) for quality in QUALITIES]:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **settings)
        if buffer.tell() <= limit:
            break
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"src": f"data:image/{kind.lower()};base64,{data}", "small": small}


def decoded(thumb: dict):
    """The ``PIL.Image`` in a thumbnail; a grey one where there is none."""
    from PIL import Image

    if not thumb["src"]:
        return Image.new("RGB", (8, 8), "#888888")
    return Image.open(io.BytesIO(base64.b64decode(thumb["src"].split(",", 1)[1]))).convert("RGB")
