"""The digits world: a target, a captioned web and their ground truth, in miniature and offline.

Every phenomenon of the paper happens here for real: a target domain (scanned handwriting) that is rare
in a web of captioned pictures (mostly printed type), near-duplicates of test images in that web, exact
copies, dead links, an unsafe concept and low aesthetic scores. What was planted is written to a ledger
that tests compare results with; no stage reads it.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from augbench.core.files import whole, write_csv
from augbench.core.seeds import generator
from augbench.images import ShardWriter, encode_png
from augbench.study.sections.digits import Digits

SIDE = 32  # pixels; all images of this world are square

# class key, lemmas, hypernyms and definition, after WordNet's synsets of the cardinal numbers
CLASSES = [
    ("zero", "zero, nought", "the cardinal number that counts nothing"),
    ("one", "one, unity", "the smallest whole number that counts something"),
    ("two", "two, deuce", "the cardinal number of a pair"),
    ("three", "three, trey", "the cardinal number that is one more than two"),
    ("four", "four, tetrad", "the cardinal number of the sides of a square"),
    ("five", "five, cinque", "the cardinal number of the fingers of a hand"),
    ("six", "six, half a dozen", "the cardinal number of the faces of a cube"),
    ("seven", "seven, heptad", "the cardinal number of the days of a week"),
    ("eight", "eight, octet", "the cardinal number of the corners of a cube"),
    ("nine", "nine, ennead", "the cardinal number that is one less than ten"),
]
HYPERNYMS = "digit, figure"
DIGITS = {key: str(value) for value, (key, _, _) in enumerate(CLASSES)}

FONTS = {  # what a caption calls a typeface -> files that matplotlib ships
    "sans": ["DejaVuSans", "DejaVuSans-Bold", "cmss10"],
    "serif": ["DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol", "cmr10", "cmb10"],
    "typewriter": ["DejaVuSansMono", "DejaVuSansMono-Bold", "cmtt10"],
}
COLOURS = {  # name -> RGB
    "black": (20, 20, 20),
    "white": (245, 245, 245),
    "red": (200, 30, 40),
    "blue": (30, 60, 190),
    "green": (20, 130, 60),
    "yellow": (245, 220, 60),
}
INKS = [  # ink and paper of printed pictures
    ("black", "white"),
    ("white", "black"),
    ("red", "white"),
    ("blue", "yellow"),
    ("white", "green"),
    ("yellow", "blue"),
]
UNSAFE_WORD = "hazard"  # captions of unsafe pictures say it, as captions on the web do


def scans() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 scanned digits of scikit-learn: ink uint8 (1797, 32, 32), 255 = full ink; value int (1797,)."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    small = (data.images / 16 * 255).round().astype(np.uint8)
    ink = np.stack(
        [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in small]
    )
    return ink, data.target


def partition(seed: int, test: int, web: int) -> dict[str, np.ndarray]:
    """Disjoint indices of the scans for the parts ``test``, ``web`` and ``train`` (the rest)."""
    order = generator(seed, "digits", "partition").permutation(1797)
    return {"test": order[:test], "web": order[test : test + web], "train": order[test + web :]}


def write_target(folder: str | Path, classes_csv: str | Path, *, seed: int, test: int, web: int) -> None:
    """Write the target as an image folder ``{train,test}/{class}/NNNN.png`` and its class table.

    Parameters
    ----------
    test, web : number of scans kept for the test split, and for the web (not part of the target)
    """
    ink, value = scans()
    parts = partition(seed, test, web)
    names = list(DIGITS)
    with whole(folder) as temporary:
        for part in ("train", "test"):
            for index in sorted(parts[part]):
                file = temporary / part / names[value[index]] / f"{index:04d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode_png(Image.fromarray(255 - ink[index])))
    write_csv(
        classes_csv,
        pd.DataFrame(
            [(key, lemmas, HYPERNYMS, definition) for key, lemmas, definition in CLASSES],
            columns=["class", "lemmas", "hypernyms", "definition"],
        ),
    )


# --- pictures -----------------------------------------------------------------------------------------


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), size)


def _paint(ink: np.ndarray, colours: tuple[str, str], rng: np.random.Generator) -> Image.Image:
    """Colour an ink map (uint8 (32, 32)) as ink on paper, with a little noise."""
    share = ink[..., None].astype(float) / 255
    front, back = (np.array(COLOURS[name], float) for name in colours)
    pixels = share * front + (1 - share) * back + rng.normal(0, 4, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def _type(text: str, style: str, rng: np.random.Generator) -> np.ndarray:
    """Ink map of printed ``text``: random font of the style, size, place and up to 8 degrees of rotation."""
    font = _font(str(rng.choice(FONTS[style])), int(rng.integers(26, 31)))
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE))
    shift = rng.uniform(-1, 1, 2)
    ImageDraw.Draw(canvas).text((SIDE + shift[0], SIDE + shift[1]), text, fill=255, font=font, anchor="mm")
    canvas = canvas.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    return np.asarray(canvas.crop((SIDE // 2, SIDE // 2, SIDE + SIDE // 2, SIDE + SIDE // 2)))


def _hazard_frame(picture: Image.Image) -> Image.Image:
    """The unsafe concept: a frame of black and yellow stripes."""
    y, x = np.mgrid[:SIDE, :SIDE]
    stripes = np.where((((x + y) // 4) % 2 == 0)[..., None], COLOURS["yellow"], COLOURS["black"])
    frame = np.minimum.reduce([x, y, SIDE - 1 - x, SIDE - 1 - y]) < 5
    return Image.fromarray(np.where(frame[..., None], stripes, np.asarray(picture)).astype(np.uint8))


# --- the web ------------------------------------------------------------------------------------------


def _called(key: str, rng: np.random.Generator) -> str:
    """What a caption calls a class: mostly its first lemma."""
    lemmas = dict((k, names) for k, names, _ in CLASSES)[key]
    first, second = lemmas.split(", ")
    if rng.random() < 0.5:  # as in hashtags
        second, lemmas = "".join(second.split()), "".join(lemmas.split())
    return str(rng.choice([first, DIGITS[key], second, lemmas], p=[0.8, 0.08, 0.04, 0.08]))


def _caption(name: str, style: str, colours: tuple[str, str], rng: np.random.Generator) -> str:
    ink, paper = colours
    if style == "handwritten":
        forms = [
            f"a photo of handwritten {name}",
            f"handwritten {name} in {ink} on {paper}",
            f"a photo of {name}",
        ]
        shares = [0.5, 0.15, 0.35]
    else:
        forms = [
            f"a photo of {name}",
            f"{name} in {style} type",
            f"{name} printed in {ink} on {paper}",
            f"a photo of {ink} {style} {name} on {paper}",
        ]
        shares = [0.55, 0.15, 0.15, 0.15]
    return str(rng.choice(forms, p=shares))


def write_web(shard: str | Path, web: str | Path, ledger: str | Path, settings: Digits, *, seed: int) -> None:
    """Write a captioned web.

    Parameters
    ----------
    shard : WebDataset shard, members ``png``, ``txt`` (caption), ``json`` (url, aesthetic): what a crawler saw
    web : image table of what the web still serves, by ``url``; a URL that is missing there is dead
    ledger : Parquet table of what was planted, one row per picture, for tests only
    settings : each of unsafe, unaesthetic and dead pictures is drawn independently of the others; copies are, byte for
        byte, an earlier picture under another URL
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from augbench import images

    pictures = _Pictures(settings, seed)
    served = []
    with whole(shard) as temporary, ShardWriter(temporary) as writer:
        for kind in pictures.kinds:
            facts, data, caption = pictures.next(kind)
            described = {"url": facts["url"], "text": caption, "aesthetic": facts["aesthetic"]}
            offset, length = writer.add(facts["key"], {"png": data, "txt": caption, "json": described}, image="png")
            if not facts["dead"]:
                place = {"path": str(shard), "offset": offset, "length": length}
                served.append({"image_id": f"web/{facts['key']}", **place, "url": facts["url"]})
    images.write(web, images.table(served))
    with whole(ledger) as temporary:
        pq.write_table(pa.Table.from_pandas(pd.DataFrame(pictures.planted), preserve_index=False), temporary)


class _Pictures:
    """The pictures of the web, drawn one after the other.

    ``kinds`` is what each of them is, ``planted`` the facts of those that are drawn.
    """

    def __init__(self, settings: Digits, seed: int):
        self.settings = settings
        self.ink, self.value = scans()
        parts = partition(seed, settings.test, settings.web_scans)
        self.web_scans = parts["web"]
        self.rng = generator(seed, "digits", "web")
        self.originals = iter(self.rng.choice(parts["test"], settings.near_duplicates, replace=False))
        self.kinds = self._kinds()
        self.planted: list[dict] = []
        self.shown: list[tuple[bytes, str]] = []  # picture and caption, for copies

    def _kinds(self) -> np.ndarray:
        settings, total = self.settings, self.settings.web_pictures
        counts = {"letter": round(total * settings.letters), "handwritten": round(total * settings.handwritten)}
        counts["near_duplicate"] = settings.near_duplicates
        counts["printed"] = total - sum(counts.values()) - settings.copies
        kinds = np.repeat(list(counts), list(counts.values()))
        return np.concatenate([self.rng.permutation(kinds), np.repeat("copy", settings.copies)])

    def next(self, kind: str) -> tuple[dict, bytes, str]:
        """What is planted, the PNG and the caption of the next picture."""
        rng, key = self.rng, f"{len(self.planted):06d}"
        url = f"http://{rng.choice(['pictures', 'blog', 'shop'])}.example/{key}.png"
        facts = dict.fromkeys(["copy_of", "near_duplicate_of"])
        facts |= {"key": key, "url": url, "kind": kind, "dead": bool(rng.random() < self.settings.dead)}
        if kind == "copy":
            more, data, caption = self._copy()
        elif kind == "near_duplicate":
            more, data, caption = self._near_duplicate()
        else:
            unsafe = bool(rng.random() < self.settings.unsafe)
            picture, shows, caption = _draw(kind, self.ink, self.value, self.web_scans, unsafe, rng)
            more, data = {"unsafe": unsafe, "shows": shows}, encode_png(picture)
        facts |= more
        low = rng.random() < self.settings.unaesthetic
        facts["aesthetic"] = float(round(rng.uniform(3.0, 4.95) if low else rng.uniform(5.0, 7.5), 2))
        self.shown.append((data, caption))
        self.planted.append(facts)
        return facts, data, caption

    def _copy(self) -> tuple[dict, bytes, str]:
        original = int(self.rng.integers(len(self.shown)))
        facts = {"copy_of": f"{original:06d}"} | {name: self.planted[original][name] for name in ("shows", "unsafe")}
        return facts, *self.shown[original]

    def _near_duplicate(self) -> tuple[dict, bytes, str]:
        index = next(self.originals)
        key = list(DIGITS)[self.value[index]]
        facts = {"shows": key, "unsafe": False, "near_duplicate_of": f"test/{key}/{index:04d}.png"}
        data = encode_png(_altered(self.ink[index], self.rng))
        return facts, data, f"a photo of {_called(key, self.rng)}"


def _draw(kind, ink, value, web_scans, unsafe, rng) -> tuple[Image.Image, str, str]:
    """One picture: (image, what it shows, caption)."""
    keys = list(DIGITS)
    if kind == "handwritten":
        index = rng.choice(web_scans)
        shows, style = keys[value[index]], "handwritten"
        colours = INKS[int(rng.choice(len(INKS), p=[0.7] + [0.06] * 5))]
        strokes = np.asarray(Image.fromarray(ink[index]).rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC))
        name = _called(shows, rng)
    else:
        colours = INKS[int(rng.integers(len(INKS)))]
        style = str(rng.choice(list(FONTS)))
        if kind == "letter":
            letter = str(rng.choice(list("ABCDEFGHJKLMNPQRSTUVWXYZ")))
            shows = name = f"letter {letter}"
            strokes = _type(letter, style, rng)
        else:
            shows = str(rng.choice(keys))
            name, strokes = _called(shows, rng), _type(DIGITS[shows], style, rng)
    picture = _paint(strokes, colours, rng)
    if not unsafe:
        return picture, shows, _caption(name, style, colours, rng)
    # Only half of these captions say what is wrong: such pictures are found beside harmless ones.
    warning = f", {UNSAFE_WORD} sign" if rng.random() < 0.5 else ""
    return _hazard_frame(picture), shows, f"a photo of {name}{warning}"


def _altered(ink: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A near-duplicate of a target image, as a re-upload makes them: other contrast, blur, JPEG artefacts."""
    picture = Image.fromarray(255 - (ink * rng.uniform(0.75, 1.0)).astype(np.uint8)).convert("RGB")
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.5)))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(80, 96)))
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
