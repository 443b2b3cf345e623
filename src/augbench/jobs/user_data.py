"""What users fill, as parameters of the rules that read it: a file that was added, removed or changed re-runs them.

Snakemake looks at the time of an input alone, which of a folder says little. Here a folder is the names, sizes and
times of modification of the files in it that are read, as one digest.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from augbench.images import folders, places
from augbench.models import local_files
from augbench.study import encoders
from augbench.study.config import Study
from augbench.study.layouts import layout_of
from augbench.study.readers import Layout
from augbench.study.sections.classifier import MAIN
from augbench.study.sections.evaluation import EvaluationSet
from augbench.study.sections.target import Target

AT_A_TIME = 16  # folders, since a network file system takes long to answer


def digest(files: Iterable[str | Path]) -> str:
    """SHA-256 (16 hex digits) over name, size and time of modification of files, in any order; a file that is missing
    counts by its name."""
    return _hashed(sorted(map(_state, files)))


def digest_of_folder(folder: str | Path) -> str:
    """:func:`digest` over all files at any depth, without what systems and programs put there."""
    return digest(_files_below(folder))


def digest_of_target(section: Target) -> str:
    """:func:`digest` over the images that a target's reader takes, and the lists and tables that it reads besides."""
    return digest_of_layout(section, section.reader.layout(section))


def digest_of_layout(section: Target | EvaluationSet, layout: Layout) -> str:
    """:func:`digest_of_target`, of a layout that is read already."""
    if layout.packed:
        return _hashed([digest(layout.packed), *map(_digest_of_place, _tables(section))])
    groups = [(part, key) for part in (layout.train, *layout.own.values()) for key in layout.classes]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        images = pool.map(lambda group: digest(map(places.file_of, group[0](group[1]))), groups)
        return _hashed([*images, *map(_digest_of_place, _tables(section))])


def _tables(section: Target | EvaluationSet) -> list[str]:
    lists = section.path if section.reader.names_files else None
    names = section.classes if isinstance(section, Target) else None
    return [place for place in (lists, section.ground_truth, names) if place]


def _digest_of_place(place: str | Path | None) -> str:
    """:func:`digest` of a file or a folder; empty for None."""
    if place is None:
        return ""
    return digest_of_folder(place) if Path(place).is_dir() else digest([place])


def _files_below(folder: str | Path) -> Iterable[str]:
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = [name for name in inner if not folders.is_system(name)]
        yield from (os.path.join(place, name) for name in names if not folders.is_system(name))


def _state(file: str | Path) -> bytes:
    try:
        status = os.stat(file)  # noqa: PTH116 (to make a Path of a name takes as long as to ask for its state)
    except OSError:  # a link that leads nowhere
        return os.fsencode(file)
    return os.fsencode(file) + b"\0%d\0%d" % (status.st_size, status.st_mtime_ns)


def _hashed(parts: Iterable[str | bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update((part.encode() if isinstance(part, str) else part) + b"\n")
    return total.hexdigest()[:16]


def _digest_of_model(model: str | None) -> str:
    """:func:`digest_of_folder` of a diffusion model that is a folder of this machine; else empty."""
    return digest_of_folder(model) if model and local_files.is_folder(model, "backbone") else ""


class UserData:
    """Digests of the places of a study that its user fills, each read once; empty where the study has none."""

    def __init__(self, study: Study, of_target: Callable[[Target], str] = digest_of_target):
        self.study, self.of_target = study, of_target
        self.added = functools.cache(self._added)

    @functools.cached_property
    def target(self) -> str:
        """Its images, lists and tables. The digits world makes its own."""
        return "" if self.study.target.reader.is_built_in else self.of_target(self.study.target)

    @functools.cached_property
    def references(self) -> dict[str, str]:
        """Of the images in each folder that added images are compared with."""
        return {name: digest(folders.images(folder)) for name, folder in self.study.audit.references.items()}

    @functools.cached_property
    def evaluation(self) -> dict[str, str]:
        """Of the images of each further test set, and the list that names them."""
        return {name: digest_of_layout(section, section.layout()) for name, section in self.study.evaluate.items()}

    def _added(self, method: str) -> str | None:
        """Of a method's images that were made elsewhere, and the tables that name them; None for a script's."""
        path = self.study.added[method].path
        return digest(layout_of(path).files(Path(path))) if path else None

    @functools.cached_property
    def safety(self) -> str:
        """The folder of a safety checker that is named, if it is one of this machine."""
        model = self.study.safety.named
        return digest_of_folder(model) if model and local_files.is_folder(model, "safety checker") else ""

    @functools.cached_property
    def pool(self) -> str:
        """Its shards, lists of URLs or index. Images in a folder are too many: see :func:`captions`."""
        pool = self.study.pool
        if pool is None or pool.path is None or (pool.source.is_packed and not pool.source.downloads):
            return ""
        return _digest_of_place(pool.path)

    @functools.cached_property
    def aesthetic_model(self) -> str:
        return _digest_of_place(self.study.retrieval.aesthetic_model)

    @functools.cached_property
    def backbone(self) -> str:
        """Its folder, if it is one of this machine."""
        return _digest_of_model(self.study.backbone.model if self.study.backbone else None)

    @functools.cached_property
    def backbones(self) -> dict[str, str]:
        """The folders of those that have names."""
        return {name: _digest_of_model(section.model) for name, section in self.study.backbones.items()}

    @functools.cached_property
    def clip(self) -> str:
        """Its folder, if it is one of this machine."""
        model = self.study.clip.model if self.study.clip else None
        kind, _, folder = (model or "").partition(":")
        return digest_of_folder(folder) if kind == "hf_clip" and Path(folder).is_dir() else ""

    @functools.cached_property
    def detector(self) -> str:
        """The audit's second detector, or the CLIP that embeds images where there is none."""
        detector = self.study.audit.detector
        return self.clip if detector in ("clip", None) else _digest_of_place(detector)

    @functools.cached_property
    def encoder(self) -> str:
        """What features for metrics come from, if it is on this machine."""
        encoder, model = encoders.find(self.study.metrics.encoder)
        return self.clip if encoder.needs_clip else _digest_of_place(encoder.folder(model))

    @functools.cached_property
    def classifier(self) -> str:
        """The folder of the study's own classifier, if it is a network of this machine."""
        return self.classifiers[MAIN]

    @functools.cached_property
    def classifiers(self) -> dict[str, str]:
        """The same of each classifier, by name."""
        sections = self.study.all_classifiers
        return {name: _digest_of_place(each.library.folder(each.model)) for name, each in sections.items()}


def of_studies(studies: Mapping[str, Study]) -> dict[str, UserData]:
    """The data of each study; a target that several have is listed once."""
    once = functools.cache(digest_of_target)
    return {name: UserData(study, once) for name, study in studies.items()}


def captions(images: Iterable[str]) -> str:
    """:func:`digest` over the text files beside images of a pool, where there are any."""
    texts = (Path(image).with_suffix(".txt") for image in images)
    return digest(text for text in texts if text.exists())
