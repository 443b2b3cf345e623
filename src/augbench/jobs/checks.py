"""What can be known of a study before any work starts: of its data, its shares, and its room on the disk."""

import itertools
import math
import os
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from augbench.core import files
from augbench.core.files import BadInput
from augbench.dataset import added, evaluation_sets, splits
from augbench.dataset import checks as target_checks
from augbench.dataset.class_table import class_keys, class_table
from augbench.images import folders
from augbench.jobs.job_costs import JobCosts
from augbench.models import backbones, families, local_files
from augbench.models.families import DEFAULT, Family
from augbench.retrieval import guard, index, metadata
from augbench.study import classes, embedding_pairs, encoders, prompts
from augbench.study.config import Config, ConfigError, Study
from augbench.study.layouts import layout_of
from augbench.study.sections.classifier import Classifier
from augbench.study.sections.models import Backbone
from augbench.study.sections.retrieval import Pool
from augbench.study.sources import PROVENANCE, Source, spellings

ROOM = 200e6  # bytes for logs, tables and pages
ENOUGH = 50  # images of a class, of which each split gets one whatever the shares

LISTED = 100_000  # images of a set that was made elsewhere of which a plan reads class and source
DECODED = 16_000_000  # bytes of them that a plan decodes


def crowded(costs: Mapping[str, JobCosts], results: Path = Path("results")) -> list[str]:
    """A sentence for each study for which the disk has too little room: a plan may be made all the same."""
    free, sentences = shutil.disk_usage(results).free, []
    for name, study in costs.items():
        needed = disk_needed(study)
        if needed > free:
            needed -= _bytes_below(results / name)  # of a study that was begun
        if needed > free:
            sentences.append(
                f"studies.{name}: writes about {needed / 1e9:.1f} GB to {results}, but only {free / 1e9:.1f} GB "
                "are free"
            )
    return sentences


def disk_needed(study: JobCosts) -> float:
    """Bytes that a study's jobs write, about, also those that go again: all fine-tuned methods may be compared at the
    same time."""
    return ROOM + sum(need.writes + need.drops for _, need in study.jobs())


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def check_world(
    config: Config, results: Path = Path("results"), script_file: Callable[[str], str | Path] = Path
) -> None:
    """What can be known before any work starts about data. Raises ConfigError.

    ``script_file`` : the name of a user's script -> where it lies
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        probe = results / f".write-{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"the folder {results} cannot be written: {error.strerror}") from None
    for name, study in config.studies.items():
        place = f"studies.{name}"
        methods = config.methods_of(study)
        prompted = study.zero_shot or any(row.conditioning for row in methods.values())
        further = next((method for method, row in methods.items() if row.start.split), None)
        check_target(study, place, prompted=prompted, further=further)
        check_models(config, study, place)
        check_backbone(config, study, place, results / name)
        check_added(config, study, place, script_file)
        check_prompts(config, study, place)
        check_pool(study, place)
        check_evaluation(study, place)
        check_captions(config, study, place)
        check_provenance(study, place)
        check_audit(study, place)
        further = [(f"classifiers.{key}.model", check_classifier, each) for key, each in study.classifiers.items()]
        for key, check, named in (
            ("classifier.model", check_classifier, study.classifier),
            *further,
            ("metrics.encoder", encoders.check, study.metrics.encoder),
        ):
            try:
                check(named)
            except ValueError as error:
                raise ConfigError(f"{place}.{key}: {error}") from None


def check_classifier(section: Classifier) -> None:
    """Raise ValueError where there is no such network, as far as that is known without loading it."""
    section.library.check(section.model, section.image_size, section.is_pretrained)


def remarks(config: Config) -> list[str]:
    """Sentences on what a study lacks: files that are not images, and what templates ask for and its classes do
    not have.

    Raises ConfigError when nothing is left of a method's templates.
    """
    sentences = []
    for name, study in config.studies.items():
        sentences += check_proxy(study, f"studies.{name}")
        if study.pool and study.pool.path:
            sentences += _remarks_on_pool(study.pool, f"studies.{name}")
        if study.target.reader.is_built_in:
            continue
        if ignored := folders.left_out_message(target_checks.left_out(study.target)):
            sentences.append(f"studies.{name}: ignored in {study.target.path}: {ignored}")
        if slow := target_checks.large_row_groups(study.target):
            sentences.append(f"studies.{name}: {slow}")
        class_rows = class_table(study.target).to_dict("records")
        for method, row in config.methods_of(study).items():
            conditioning = row.conditioning
            try:
                lacking = [words for class_info in class_rows if (words := _lacking(conditioning, class_info))]
            except ValueError as error:
                raise ConfigError(f"studies.{name}.methods: {method}: {error}") from None
            if lacking:
                words = " or ".join(dict.fromkeys(word for words in lacking for word in words))
                sentences.append(
                    f"studies.{name}: {len(lacking)} of {len(class_rows)} classes have no {words}; {method} leaves "
                    "that out of their prompts; to supply it, name a CSV with the columns "
                    "class,lemmas,hypernyms,definition as `target: {classes: ...}`"
                )
    return sentences


def _lacking(conditioning: str | None, class_info: dict) -> list[str]:
    words = prompts.lacking(conditioning, class_info)
    if words:
        prompts.usable(conditioning, class_info)
    return words


def check_target(study: Study, place: str, *, prompted: bool, further: str | None) -> None:
    """Whether there can be a study of the target: its images, splits and names. Raises ConfigError.

    ``prompted``: whether prompts are made of its classes; ``further``: a method that adds further real images
    """
    if not study.target.reader.is_built_in:
        try:
            target_checks.check(study.target)
        except ValueError as error:
            raise ConfigError(f"{place}.target: {error}") from None
    check_shares(study, place, further)
    check_splits(study, place)
    check_filling(study, place)
    if prompted:
        check_names(study, place)


def check_shares(study: Study, place: str, further: str | None) -> None:
    """That shares are of one whole, and leave some to a method that adds further real images. Raises ConfigError."""
    own = _own_splits(study)
    drawn = ("validation", "test") if study.dataset.shots else ("train", "validation", "test")
    shares = {name: share for name in drawn if name not in own and (share := getattr(study.dataset, name)) is not None}
    total = round(sum(shares.values()), 9)
    if total > 1:
        raise ConfigError(f"{place}.dataset: {' + '.join(shares)} must not exceed 1; they are {total:g}")
    if further and total == 1:
        raise ConfigError(
            f"{place}.dataset: its shares leave no images for {further} to add; take a smaller share to train on, or "
            f"leave {further} out of `methods`"
        )


def _own_splits(study: Study) -> set[str]:
    """The held-out splits that the target has of its own."""
    reader = study.target.reader
    return set(reader.known_splits if reader.is_built_in else reader.layout(study.target).own)


def check_splits(study: Study, place: str) -> None:
    """That there will be images to train on, to validate and to test with, of each class. Raises ConfigError."""
    own = _own_splits(study)
    for name in ("train", "validation", "test"):
        if name not in own and getattr(study.dataset, name) == 0:
            raise ConfigError(
                f"{place}.dataset.{name}: 0 leaves no {name} images, and the target has no such split of its own; "
                f"write a share, e.g. `dataset: {{{name}: 0.1}}`"
            )
    if study.target.reader.is_built_in:
        return
    layout, shots = study.target.reader.layout(study.target), study.dataset.shots or 0
    left = 1 - (study.dataset.validation or 0) - study.dataset.test
    drawn = shots + study.dataset.validation_shots
    enough = ENOUGH + math.ceil((drawn + 2) / max(left, 0.01))  # each share is rounded up
    for key in layout.classes:
        count = sum(1 for _ in itertools.islice(layout.train(key), enough))
        sizes = splits.sizes(count, study.dataset, own)
        if sizes["train"] < shots:
            raise ConfigError(f"{place}.dataset.shots: {splits.too_few_for_shots(key, count, sizes['train'], shots)}")
        if count < enough and (
            empty := [name for name in sizes if getattr(study.dataset, name, 0) and not sizes[name]]
        ):
            raise ConfigError(
                f"{place}.target: the class {key} of {study.target.path} has {count} images, too few for the split "
                f"{empty[0]!r}; add images, leave the class out, or change the shares in `dataset`"
            )


def check_filling(study: Study, place: str) -> None:
    """That some class lacks images where classes are topped up. Raises ConfigError."""
    reader, dataset = study.target.reader, study.dataset
    if dataset.fill_to is None:
        return
    if reader.is_built_in:
        counts = dict(enumerate(reader.known_counts(study.digits)[0]))
    else:
        layout = reader.layout(study.target)
        counts = {key: sum(1 for _ in layout.train(key)) for key in layout.classes}
    own = _own_splits(study)
    train = {str(key): splits.sizes(count, dataset, own)["train"] for key, count in counts.items()}
    try:
        classes.wanted(train, dataset.fill_to)
    except ValueError as error:
        raise ConfigError(f"{place}.dataset: {error}") from None


def check_names(study: Study, place: str) -> None:
    """That each class has a name of which prompts can be made. Raises ConfigError."""
    if study.target.reader.is_built_in:
        return
    for row in class_table(study.target).to_dict("records"):
        controls = [letter for letter in row["lemmas"] if unicodedata.category(letter) in ("Cc", "Cs")]
        if controls or not row["lemmas"].split(",")[0].strip():
            why = "has a control character in its name" if controls else "leaves no name"
            raise ConfigError(
                f"{place}.target: the class {row['class']!r} {why} for prompts; name it in a CSV with the columns "
                "class,lemmas and the key `classes`"
            )


def check_added(config: Config, study: Study, place: str, script_file: Callable[[str], str | Path] = Path) -> None:
    """Whether the images that were made elsewhere can be added, as far as the first of them tell. Raises ConfigError.

    What a script makes, and what the job alone can know, is checked when it is there.
    """
    for method, section in study.added.items():
        if method not in config.methods_of(study):
            continue
        if section.script:
            if not Path(script_file(section.script)).is_file():
                raise ConfigError(f"{place}.added.{method}.script: there is no file {section.script}")
            continue
        try:
            keys = class_keys(study.target)
            rows = list(itertools.islice(layout_of(section.path).rows(Path(section.path)), LISTED + 1))
            table = added.read(method, section.path, keys, rows)
            if study.target.unreadable == "skip":
                continue  # which images there are, of the target and of these, is known when all are decoded
            added.check_readable(table, at_most=DECODED)
            if study.target.reader.is_built_in:
                continue
            if any(table["source"]):
                added.start_images(table, splits.split(study.target, study.dataset, study.seed, decode=False))
            if len(rows) <= LISTED and not section.allow_fewer:
                added.check_counts(table, _wanted(config, study, method), section.path)
        except ValueError as error:
            raise ConfigError(f"{place}.added.{method}: {error}") from None


def _wanted(config: Config, study: Study, method: str) -> dict[str, int]:
    """Class -> images that a method adds to it at its largest ratio."""
    layout, own = study.target.reader.layout(study.target), _own_splits(study)
    ratio = max(config.wanted_ratios(study, method))
    counts = {key: sum(1 for _ in layout.train(key)) for key in layout.classes}
    train = {key: splits.sizes(count, study.dataset, own)["train"] for key, count in counts.items()}
    return {key: classes.added(count, ratio) for key, count in classes.wanted(train, study.dataset.fill_to).items()}


def check_pool(study: Study, place: str) -> None:
    """Whether what the pool and retrieval name is there. Raises ConfigError."""
    head = study.retrieval.aesthetic_model
    if head and not Path(head).is_file():
        raise ConfigError(f"{place}.retrieval.aesthetic_model: there is no file {head}")
    if not study.pool or not study.pool.path:
        return
    path, source = Path(study.pool.path), study.pool.source
    if not (path.is_dir() or (source.may_be_a_file and path.is_file())):
        raise ConfigError(f"{place}.pool.path: there is no folder {path}")
    try:
        source.check(path, study.pool.columns)
        clip = study.clip.model if study.clip and study.clip.model else ""
        if source.is_scanned:
            embedding_pairs.check(path, study.pool.array, clip, local_files.clip_width(clip))
        if source.brings_index:
            if not index.index_file(path).is_file():
                raise BadInput(f"there is no image.index in {path}")
            index.check_index(path, clip=clip, width=local_files.clip_width(clip))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{place}.pool.path: {error}") from None
    if study.retrieval.min_aesthetic is not None and not head and _lacks_scores(path, study.pool):
        raise ConfigError(
            f"{place}.retrieval.min_aesthetic: the images of {path} have no aesthetic scores; name a model that scores "
            "pictures, `aesthetic_model: HEAD.pth`, or write `min_aesthetic: null` to take images whatever their score"
        )


def check_captions(config: Config, study: Study, place: str) -> None:
    """Whether the pool has captions, where a method matches them. Raises ConfigError."""
    matching = next((name for name, row in config.methods_of(study).items() if row.match.reads_captions), None)
    if not (matching and study.pool and study.pool.path):
        return
    columns = _columns(Path(study.pool.path), study.pool.source)
    spelt = spellings(study.pool.columns)["caption"]
    if columns and not set(columns) & set(spelt):
        raise ConfigError(
            f"{place}.methods: {matching} matches captions, but {study.pool.path} has no column "
            f"{' or '.join(spelt)} (it has {files.printable(', '.join(columns))}); rename that of its "
            "captions, or write `match: clip` in the method's row"
        )


def check_provenance(study: Study, place: str) -> None:
    """Whether the pool states licences and faces, where these are asked for. Raises ConfigError."""
    if not (study.pool and study.pool.path):
        return
    columns = _columns(Path(study.pool.path), study.pool.source)
    for column, key, asked in (
        ("licence", "pool.licences", study.pool.licences),
        ("face_bboxes", "retrieval.blur_faces", study.retrieval.blur_faces),
    ):
        if asked and columns is not None and not set(columns) & set(PROVENANCE[column]):
            raise ConfigError(
                f"{place}.{key}: the metadata of {study.pool.path} have no column {' or '.join(PROVENANCE[column])}; "
                f"rename the column that says it, or leave out {key.partition('.')[2]}"
            )


def _remarks_on_pool(pool: Pool, place: str) -> list[str]:
    """What of a pool with a path is ignored, and how it is searched where there is a choice."""
    assert pool.path
    sentences = []
    if kinds := folders.left_out_message(pool.source.left_out(pool.path)):
        sentences.append(f"{place}: ignored in {pool.path}: {kinds}")
    if pool.source.is_scanned:
        rows = embedding_pairs.count(pool.path, pool.array)
        sentences.append(
            f"{place}: all of the {rows:,} embeddings in {pool.path} are compared with each class's query; no index "
            "is built"
        )
    return sentences


def check_prompts(config: Config, study: Study, place: str) -> None:
    """Whether files of prompts have those of each class, and of no other. Raises ConfigError."""
    if study.target.reader.is_built_in:
        return
    for method, row in config.methods_of(study).items():
        conditioning = row.conditioning
        if conditioning and prompts.is_prompt_file(conditioning):
            try:
                prompts.check_classes(conditioning, class_table(study.target).to_dict("records"))
            except ValueError as error:
                raise ConfigError(f"{place}.methods: {method}: {error}") from None


def check_models(config: Config, study: Study, place: str) -> None:
    """Whether the pretrained models that a study names are there, and can be used. Raises ConfigError.

    What is on the hub is looked at when it is fetched.
    """
    part, model = "safety", study.safety.named
    try:
        is_checked = any(row.start.is_checked for row in config.methods_of(study).values())
        if model is not None and is_checked and local_files.is_folder(model, "safety checker"):
            local_files.check_safety_checker(model)
        part = "clip"
        if study.clip and study.clip.model is not None:
            local_files.check_clip(study.clip.model)
    except ValueError as error:
        raise ConfigError(f"{place}.{part}.model: {error}") from None


def check_backbone(config: Config, study: Study, place: str, folder: Path) -> None:
    """Whether the diffusion models that a study names can be used for its methods, as far as that is known before they
    are fetched. Raises ConfigError. ``folder`` is the study's, where models may lie that were fetched before."""
    methods = config.methods_of(study)
    has_checker = study.safety.is_backbones and any(method.start.is_checked for method in methods.values())
    for name, section in {None: study.backbone, **study.backbones}.items():
        own = {key: row for key, row in methods.items() if row.start.is_generated and row.backbone == name}
        if section is None or not (own or (name is None and has_checker)):
            continue
        where, lies = (f"backbones.{name}", folder / "backbones" / name) if name else ("backbone", folder / "backbone")
        try:
            family = DEFAULT if section.model is None else _family(section, has_checker and name is None, lies)
        except ValueError as error:
            raise ConfigError(f"{place}.{where}.model: {error}") from None
        if family is None:
            continue
        if family.has_own_sampler and section.offload != "none":
            raise ConfigError(f"{place}.{where}.offload: {family.name} needs none, in 4 GB of a GPU; leave it out")
        for key, method in own.items():
            reading = [part.name for part in method.trained if part.trains_encoder or part.uses_pseudo_word]
            if reading and section.offload == "sequential":
                raise ConfigError(
                    f"{place}.{where}.offload: {key} fine-tunes {reading[0]}, which cannot be loaded layer by layer; "
                    "write `offload: model`"
                )
            try:
                families.check_method(family, method, key)
                family.check_settings(method.generation(study.generate))
            except ValueError as error:
                raise ConfigError(f"{place}.methods: {error}") from None


def _family(section: Backbone, has_checker: bool, fetched: Path) -> Family | None:
    """The family of the backbone that is named, None where that is not known yet. Raises ValueError where it cannot be
    used. ``fetched`` is where it may lie already."""
    model = str(section.model)
    if local_files.is_folder(model, "backbone"):
        if section.revision:
            raise BadInput(f"{model} is a folder, which has no revisions; leave `revision` out")
        local_files.check_pipeline(model, has_checker, section.variant)
        return families.of_folder(model)
    if (origin := backbones.origin_of(fetched)) and origin.model == model:
        return families.of_folder(fetched)
    family = families.of_name(model)
    if family and model.startswith(family.gated_ids or ("\0",)):
        backbones.check_token(model)
    if family and has_checker and not family.ships_checker:
        raise BadInput(f"{model} has no safety_checker: {local_files.NO_CHECKER}")
    return family


def check_filters(studies: Mapping[str, JobCosts]) -> None:
    """That the shares that filters keep suffice for the ratios at which images are added, of methods whose images are
    generated or retrieved for it. Raises ConfigError."""
    for name, study in studies.items():
        for method in study.files.filtering:
            rule, ratio = study.files.methods[method].filter, study.files.enough_for(method, "main")
            if rule is None or rule.keep is None or rule.allow_fewer or ratio is None:
                continue
            having = "that lacks %d images" if study.size.filled else "with %d training images"
            for count in set(study.size.wanted):
                candidates, wanted = study.candidates_of_class(method, count), classes.added(count, ratio)
                if candidates is not None and (kept := math.ceil(round(rule.keep * candidates, 9))) < wanted:
                    raise ConfigError(
                        f"studies.{name}.methods: the filter of {method} keeps {kept} of the {candidates} images of a "
                        f"class {having % count}, but {wanted} are added to it; write a higher `keep`, "
                        f"{study.files.methods[method].start.more}, or `allow_fewer: true` in the filter"
                    )


def check_proxy(study: Study, place: str) -> list[str]:
    """A sentence where the environment names a proxy that is not used.

    Raises ConfigError where one is wanted that is not there, or cannot be used.
    """
    if not (study.pool and study.pool.source.downloads):
        return []
    try:
        named = [scheme for scheme in guard.environment_proxies() if scheme in guard.SCHEMES]
    except ValueError as error:
        if study.retrieval.proxy:
            raise ConfigError(f"{place}.retrieval.proxy: {error}") from None
        named = ["all"]
    if study.retrieval.proxy and not named:
        raise ConfigError(f"{place}.retrieval.proxy: the environment has neither http_proxy nor https_proxy; set one")
    if named and not study.retrieval.proxy:
        names = " and ".join(f"{scheme}_proxy" for scheme in named)
        return [
            f"{place}.retrieval: images are downloaded without the proxy of the environment ({names}); "
            "write `retrieval: {proxy: environment}` to use it"
        ]
    return []


def _lacks_scores(path: Path, pool: Pool) -> bool:
    """Whether it is known, before any work starts, that no image of a pool has an aesthetic score."""
    columns = _columns(path, pool.source)
    return columns is not None and not set(columns) & set(spellings(pool.columns)["aesthetic"])


def check_evaluation(study: Study, place: str) -> None:
    """Whether the further test sets are there, and hold images of the target's classes alone. Raises ConfigError."""
    for name, section in study.evaluate.items():
        try:
            layout = section.layout()
            images_of = section.images_of(layout)
            if all(next(iter(images_of(label)), None) is None for label in layout.classes):
                raise BadInput(f"{section.path} holds no image")
            if not study.target.reader.is_built_in:
                evaluation_sets.assign(section, list(layout.classes), class_table(study.target).to_dict("records"))
        except ValueError as error:
            raise ConfigError(f"{place}.evaluate.{name}: {error}") from None


def _columns(path: Path, source: Source) -> list[str] | None:
    """The columns that are known of each image of a pool, as far as they are known before any work starts."""
    return metadata.shape(path)[1] if source.brings_index else source.columns(path)


def check_audit(study: Study, place: str) -> None:
    """Whether what the audit names is there. Raises ConfigError."""
    for name, folder in study.audit.references.items():
        if not Path(folder).is_dir():
            raise ConfigError(f"{place}.audit.references.{name}: there is no folder {folder}")
    detector = study.audit.detector
    if detector and detector != "clip" and not Path(detector).is_file():
        raise ConfigError(f"{place}.audit.detector: there is no file {detector}; write clip, or the path of a model")
