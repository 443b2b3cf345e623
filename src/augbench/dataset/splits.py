"""Splits the target as the paper does."""

import math
from collections.abc import Collection, Iterable

import pandas as pd

from augbench import images
from augbench.core.files import BadInput
from augbench.core.seeds import generator
from augbench.dataset.verification import Verifier
from augbench.images import folders, places
from augbench.images.places import Place

SPLITS = ("train", "validation", "test", "more_real", "unused")


def split(target, dataset, seed: int, verifier: Verifier | None = None, decode: bool = True) -> pd.DataFrame:
    """All images of the target as an image table with the further column ``split``.

    Within each class, shares of the training images are drawn at random, which retains class imbalance
    (paper, section 3): ``validation``, a disjoint ``train`` and a further disjoint set of the size of the
    training set, ``more_real``, as far as images are left; the rest is ``unused``. Validation images are drawn
    first, so they are the same for 10% of ImageNet and for all of it. With ``shots`` test images are drawn next, so
    that the training images of more shots are those of fewer, and others; so are validation images that are no share
    of a class: they are the last in its order. Sizes are those of :func:`sizes`. Of a validation or test split of the
    target's own, all images are taken, and none are drawn for it.

    Without ``decode`` images are taken to be readable, as all are where one that is not stops the study. Raises
    ValueError naming an unreadable image (``unreadable: stop``) or a class left without images.
    """
    layout = target.reader.layout(target)
    readable = (verifier or Verifier()).readable
    rows, unreadable = [], []

    def usable(paths: Iterable[Place]) -> list[Place]:
        return readable(sorted(paths), target.unreadable, unreadable) if decode else sorted(paths)

    for key in layout.classes:
        files_of_class = usable(layout.train(key))
        rng = generator(seed, "split", key)
        order = [files_of_class[i] for i in rng.permutation(len(files_of_class))]
        counts, start = sizes(len(order), dataset, layout.own), 0
        if dataset.shots and dataset.validation is None:
            last = len(order) - counts.get("validation", 0)
            order = order[last:] + order[:last]
        for name, count in counts.items():
            part = order[start : start + count]
            start += count
            if name == "train" and dataset.shots and len(part) < dataset.shots:
                raise BadInput(too_few_for_shots(key, len(order), len(part), dataset.shots))
            if getattr(dataset, name, 0) and not part:
                raise BadInput(f"the class {key} has {len(order)} images, too few for the split {name!r}")
            rows += [(name, key, file) for file in sorted(part)]
        rows += [("unused", key, file) for file in sorted(order[start:])]
        for name, files_of in layout.own.items():
            rows += [(name, key, file) for file in usable(files_of(key))]
    table = images.table(places.reference(file, layout.root) | {"class": key} for _, key, file in rows)
    table["split"] = [name for name, _, _ in rows]
    for file in unreadable:
        print(f"left out: {file}", flush=True)
    if layout.left_out and decode:
        print(f"ignored: {folders.left_out_message(layout.left_out)}", flush=True)
    return table.sort_values("image_id", ignore_index=True)


def sizes(count: int, dataset, own: Collection[str] = ()) -> dict[str, int]:
    """Images of the splits of a class of ``count`` images, in the order in which they are drawn; none for those that
    the target has of its ``own``.

    A share is rounded up: so the 732 to 1,300 images of ImageNet's classes give the paper's 74 to 130. Where all
    images are shared out and rounding wants more than there are, validation and test give in turn, so that what
    training leaves makes two equal parts (Caltech256); without a test share training gives, so that it is all but
    the validation split (full ImageNet). With ``shots``, training takes so many of what the other splits leave, or
    all of it, and validation at most four, unless a share is set aside for it.
    """
    if dataset.shots:
        held_out = {name: getattr(dataset, name) for name in ("validation", "test") if name not in own}
        wanted = {
            name: min(count, dataset.validation_shots if share is None else math.ceil(round(share * count, 9)))
            for name, share in held_out.items()
        }
        wanted["train"] = max(0, min(dataset.shots, count - sum(wanted.values())))
        return wanted | {"more_real": max(0, min(wanted["train"], count - sum(wanted.values())))}
    shares = {name: getattr(dataset, name) for name in ("validation", "train", "test") if name not in own}
    wanted = {name: math.ceil(round(share * count, 9)) for name, share in shares.items()}
    while (excess := sum(wanted.values()) - count) > 0:
        if "test" in own:
            wanted["train"] -= excess
            break
        largest = max([name for name in ("test", "validation") if name in wanted], key=lambda name: wanted[name])
        if not wanted[largest]:
            break
        wanted[largest] -= 1
    return wanted | {"more_real": max(0, min(wanted["train"], count - sum(wanted.values())))}


def too_few_for_shots(key: str, count: int, left: int, shots: int) -> str:
    """A sentence on a class of ``count`` images of which validation and test leave too few."""
    fewer = f"write `shots: {left}` or fewer" if left else "write smaller shares for validation and test"
    return (
        f"the class {key} has {count} images, of which {left} are left to train on, fewer than {shots} shots: {fewer}, "
        "add images, or leave the class out"
    )
