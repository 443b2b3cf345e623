"""What can be known of a study before any work starts: of its data, its shares, and its room on the disk."""

import os
import shutil
from pathlib import Path

from augbench.config import Config, ConfigError, Study


def check_world(config: Config, results: Path = Path("results")) -> list[str]:
    """What can be known before any work starts about data and disk. Raises ConfigError.

    Returns a sentence for each study for which the disk has too little room: a plan may be made all the same.
    """
    from augbench import target
    from augbench.classifier import check_model

    try:
        results.mkdir(parents=True, exist_ok=True)
        probe = results / f".write-{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"the folder {results} cannot be written: {error.strerror}") from None
    free, crowded = shutil.disk_usage(results).free, []
    for name, study in config.studies.items():
        place = f"studies.{name}"
        if study.target.reader != "digits":
            try:
                target.check(study.target)
            except ValueError as error:
                raise ConfigError(f"{place}.target: {error}") from None
        check_shares(config, study, place)
        check_pool(study, place)
        check_audit(study, place)
        try:
            check_model(study.classifier.model)
        except ValueError as error:
            raise ConfigError(f"{place}.classifier.model: {error}") from None
        needed = disk_needed(config, study, len(target.class_keys(study.target)))
        if needed > free:
            crowded.append(
                f"{place}: needs about {needed / 1e9:.1f} GB in {results}, but only {free / 1e9:.1f} GB are free"
            )
    return crowded


def remarks(config: Config) -> list[str]:
    """Sentences on what a study goes without: files that are no images, and what templates ask for and its classes do
    not have.

    Raises ConfigError when nothing is left of a method's templates.
    """
    from augbench import folders, prompts, target

    found = []
    for name, study in config.studies.items():
        if study.target.reader == "digits":
            continue
        if not_taken := folders.told(target.left_out(study.target)):
            found.append(f"studies.{name}: not taken from {study.target.path}: {not_taken}")
        classes = target.class_table(study.target).to_dict("records")
        for method in study.methods:
            conditioning = config.methods[method].conditioning
            try:
                lacking = [words for about in classes if (words := _lacking(prompts, conditioning, about))]
            except ValueError as error:
                raise ConfigError(f"studies.{name}.methods: {method}: {error}") from None
            if lacking:
                words = " or ".join(dict.fromkeys(word for words in lacking for word in words))
                found.append(
                    f"studies.{name}: {len(lacking)} of {len(classes)} classes have no {words}; {method} leaves that "
                    "out of their prompts; a CSV with columns class,lemmas,hypernyms,definition, named as "
                    "`target: {classes: ...}`, would say it"
                )
    return found


def _lacking(prompts, conditioning: str | None, about: dict) -> list[str]:
    words = prompts.lacking(conditioning, about)
    if words:
        prompts.usable(conditioning, about)
    return words


def check_shares(config: Config, study: Study, place: str) -> None:
    """That shares are of one whole, and leave some to a method that adds further real images. Raises ConfigError."""
    from augbench import target

    own = {"test"} if study.target.reader == "digits" else set(target.layout(study.target).own)
    shares = {name: getattr(study.dataset, name) for name in ("train", "validation", "test") if name not in own}
    total = round(sum(shares.values()), 9)
    if total > 1:
        raise ConfigError(f"{place}.dataset: {' + '.join(shares)} must not exceed 1; they are {total:g}")
    more = [method for method in study.methods if config.methods[method].start == "more_real"]
    if more and total == 1:
        raise ConfigError(
            f"{place}.dataset: its shares leave no images for {more[0]} to add; take a smaller share to train on, or "
            f"leave {more[0]} out of `methods`"
        )


def check_pool(study: Study, place: str) -> None:
    """Whether what the pool and retrieval name is there. Raises ConfigError."""
    from augbench import pool

    head = study.retrieval.aesthetic_model
    if head and not Path(head).is_file():
        raise ConfigError(f"{place}.retrieval.aesthetic_model: there is no file {head}")
    if not study.pool or not study.pool.path:
        return
    path, source = Path(study.pool.path), study.pool.source
    if not (path.is_dir() or (source == "urls" and path.is_file())):
        raise ConfigError(f"{place}.pool.path: there is no folder {path}")
    if study.pool.local:
        try:
            pool.check(source, path)
        except ValueError as error:
            raise ConfigError(f"{place}.pool.path: {error}") from None
    elif not (path / "image.index").is_file():
        raise ConfigError(f"{place}.pool.path: there is no image.index in {path}")


def check_audit(study: Study, place: str) -> None:
    """Whether what the audit names is there. Raises ConfigError."""
    for name, folder in study.audit.references.items():
        if not Path(folder).is_dir():
            raise ConfigError(f"{place}.audit.references.{name}: there is no folder {folder}")
    detector = study.audit.detector
    if detector and detector != "clip" and not Path(detector).is_file():
        raise ConfigError(f"{place}.audit.detector: there is no file {detector}; write clip, or the path of a model")


def disk_needed(config: Config, study: Study, classes: int) -> int:
    """A rough lower bound in bytes: generated PNGs (1.5 bytes per pixel) of all generating methods."""
    generating = sum(config.methods[method].start in ("noise", "image") for method in study.methods)
    per_class = study.generate.images_per_class or 100
    pixels = study.generate.image_size**2
    return int(1.5 * pixels * per_class * classes * generating) + 200_000_000
