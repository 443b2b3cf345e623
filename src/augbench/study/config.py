"""The configuration: checked before any work starts, with errors that say what to write."""

import math

from pydantic import Field, ValidationError, field_validator, model_validator

from augbench.core.seeds import derive
from augbench.study import unions
from augbench.study.methods import Method
from augbench.study.sections.added import Added
from augbench.study.sections.audit import REFERENCES, Audit
from augbench.study.sections.base import ConfigError, Count, Name, Positive, Section, did_you_mean
from augbench.study.sections.classifier import MAIN, Classifier
from augbench.study.sections.diffusion import Finetune, Generate
from augbench.study.sections.digits import Digits
from augbench.study.sections.evaluation import EvaluationSet
from augbench.study.sections.jobs import Jobs
from augbench.study.sections.metrics import Metrics
from augbench.study.sections.models import Backbone, Clip, Safety
from augbench.study.sections.retrieval import Pool, Retrieval
from augbench.study.sections.target import Dataset, Target


class Scaling(Section):
    """Further augmentation ratios of some methods (paper, Figure 5B)."""

    methods: list[str] = Field([], description="methods of the study that are measured at further ratios")
    ratios: list[Positive] = Field([], description="added images per class / training images per class")

    @model_validator(mode="after")
    def _both(self):
        if bool(self.methods) != bool(self.ratios):
            raise ValueError("scaling needs methods and ratios, e.g. `{methods: [retrieval], ratios: [0.5, 2, 10]}`")
        return self


class Study(Section):
    seed: int = Field(0, ge=0, description="of every random choice of the study")
    methods: list[str] = Field(min_length=1, description="rows of the method table")
    subsamples: Count = Field(
        1,
        description="draws of the target, each with all methods and runs: the study NAME, and NAME-2, ... of other "
        "seeds; a table of all has standard errors for both draws and runs",
    )
    runs: Count = Field(5, description="resampled sets and classifier runs per method")
    ratios: list[Positive] = Field(
        [1.0], min_length=1, description="of all methods: added images per class / training images per class"
    )
    scaling: Scaling = Scaling.default()
    target: Target
    dataset: Dataset = Dataset.default()
    digits: Digits = Digits.default()
    clip: Clip | None = None
    pool: Pool | None = None
    backbone: Backbone | None = None
    backbones: dict[Name, Backbone] = Field({}, description="further ones, by the names that methods call them")
    safety: Safety = Safety.default()
    added: dict[Name, Added] = Field({}, description="where images lie that were made elsewhere, by their method")
    retrieval: Retrieval = Retrieval.default()
    finetune: Finetune = Finetune.default()
    generate: Generate = Generate.default()
    classifier: Classifier = Classifier.default()
    classifiers: dict[Name, Classifier] = Field(
        {},
        description="further ones, by their names: trained on the same sets of images, at the main ratio, for the "
        "table that crosses methods and classifiers",
    )
    zero_shot: bool = Field(
        False,
        description="score the study's CLIP on the test images by the names of the classes alone, `A photo of NAME`, "
        "as a baseline that nothing is trained for",
    )
    evaluate: dict[Name, EvaluationSet] = Field({}, description="further test sets, by names of your own")
    audit: Audit = Audit.default()
    metrics: Metrics = Metrics.default()
    scores: bool = Field(
        False, description="score all images that may be added, also those of methods without a filter"
    )
    drop_leaks: bool = Field(
        False,
        description="do not add images that may be copies of validation or test images, by what the audit goes by",
    )
    jobs: Jobs = Jobs.default()

    def backbone_of(self, method: Method) -> Backbone | None:
        """The backbone that generates a method's images."""
        return self.backbones.get(method.backbone) if method.backbone else self.backbone

    @property
    def all_classifiers(self) -> dict[str, Classifier]:
        """The study's own and further ones, by name."""
        return {MAIN: self.classifier, **self.classifiers}

    @property
    def judged_in_full(self) -> list[str]:
        """The reference sets of which people judge all candidate pairs: all test sets, unless others are named."""
        return ["test", *self.evaluate] if self.audit.in_full is None else self.audit.in_full

    @property
    def main_ratio(self) -> float:
        """The ratio of Table 1, at which retrieval must fill a class or it is excluded for every method."""
        return 1.0 if 1.0 in self.ratios else min(self.ratios)

    def wanted_ratios(self, method: str) -> list[float]:
        """The augmentation ratios that the study asks for, of a method that adds images, the main one first."""
        further = {*self.ratios, *(self.scaling.ratios if method in self.scaling.methods else [])}
        return [self.main_ratio, *sorted(further - {self.main_ratio})]

    def main_times(self, method: Method) -> float:
        """Images that a method generates for a class, as a multiple of its training images, from which the main
        ratio's are drawn."""
        return max(method.generation(self.generate).times, self.main_ratio)

    @model_validator(mode="after")
    def _sets_named(self):
        for name in self.evaluate:
            if name in ("train", *REFERENCES, *self.audit.references):
                raise ValueError(f"evaluate: {name} is a split of the target, or named in `audit`; choose another name")
        known = [*REFERENCES, *self.audit.references, *self.evaluate]
        for name in self.audit.in_full or []:
            if name not in known:
                meant = did_you_mean(name, known)
                raise ValueError(
                    f"audit.in_full: there is no reference set {name!r}{meant} (known: {', '.join(known)})"
                )
        return self

    @model_validator(mode="after")
    def _filled(self):
        for name in ("retrieval", "generate"):
            if self.dataset.fill_to and getattr(self, name).images_per_class:
                raise ValueError(
                    f"{name}.images_per_class: `dataset.fill_to` says how many images a class lacks, and no others are "
                    "asked for: leave one of them out"
                )
        return self

    @field_validator("methods")
    @classmethod
    def _once(cls, value):
        twice = next((name for name in value if value.count(name) > 1), None)
        if twice:
            raise ValueError(f"{twice} is listed twice")
        return value


class Config(Section):
    methods: dict[Name, Method]
    studies: dict[Name, Study] = Field(min_length=1)

    def methods_of(self, study: Study) -> dict[str, Method]:
        """The methods of a study, and those whose images its unions take."""
        return {name: self.methods[name] for name in unions.with_parts(study.methods, self.methods)}

    def wanted_ratios(self, study: Study, method: str) -> list[float]:
        """The ratios for which a method has images: its own, and those of unions that take them; the main one
        first."""
        takers = [name for name in study.methods if method in unions.shares_of(name, self.methods)]
        further = {ratio for name in [method, *takers] for ratio in study.wanted_ratios(name)}
        return [study.main_ratio, *sorted(further - {study.main_ratio})]

    @model_validator(mode="after")
    def _complete(self):
        unions.check(self.methods)
        for name, study in self.studies.items():
            for method in study.methods:
                if method not in self.methods:
                    raise ValueError(
                        f"studies.{name}.methods: there is no method {method!r}{did_you_mean(method, self.methods)}"
                        f" (known: {', '.join(self.methods)})"
                    )
            methods = self.methods_of(study)
            for section in sorted({key for row in methods.values() for key in row.start.sections}):
                if getattr(study, section) is None:
                    raise ValueError(f"studies.{name}: its methods need the section `{section}`, which is missing")
            self._check_backbones(name, study)
            self._check_added(name, study)
            self._check_safety(name, study)
            self._check_filters(name, study)
            self._check_classifiers(name, study)
            for method in study.scaling.methods:
                row = self.methods[method] if method in study.methods else None
                if row is None or row.start.enough(study, row) is None:
                    raise ValueError(
                        f"studies.{name}.scaling.methods: {method!r} is not one of the study's methods that can add "
                        "more images"
                    )
            for method, row in methods.items():
                states = row.candidates
                if all(state.startswith("epoch-") and int(state[6:]) > study.finetune.max_epochs for state in states):
                    raise ValueError(
                        f"studies.{name}.finetune.max_epochs: {study.finetune.max_epochs} epochs are fewer than "
                        f"{method} needs for its first candidate"
                    )
            clustered = [method for method, row in methods.items() if row.clusters > 1]
            if clustered and study.finetune.embedding == "clip" and study.clip is None:
                raise ValueError(
                    f"studies.{name}: {clustered[0]} needs the section `clip`, or "
                    "`finetune: {embedding: inception_v3}`"
                )
            if study.audit.detector == "clip" and study.clip is None:
                raise ValueError(f"studies.{name}.audit.detector: clip needs the section `clip`")
            if study.zero_shot and study.clip is None:
                raise ValueError(
                    f"studies.{name}.zero_shot: true needs the section `clip`; write it, e.g. "
                    "`clip: {model: ViT-L/14}`, or `zero_shot: false`"
                )
            if study.metrics.row.needs_clip and study.clip is None:
                raise ValueError(
                    f"studies.{name}.metrics.encoder: {study.metrics.encoder} needs the section `clip`; write it, or "
                    "`metrics: {encoder: classifier}`"
                )
            trained = [part for part in ("clip", "backbone") if getattr(getattr(study, part), "train", None)]
            if trained and (study.pool is None or not study.pool.source.has_images):
                raise ValueError(
                    f"studies.{name}.{trained[0]}.train needs a pool with images, not an index or a service"
                )
            if study.pool and not study.pool.source.returns_embeddings:
                diverse = next((method for method, row in methods.items() if row.diversity), None)
                if diverse:
                    raise ValueError(
                        f"studies.{name}.methods: {diverse} needs the embeddings of the images, which a service does "
                        "not return: use `pool: {source: index}`"
                    )
            if study.pool and not study.pool.source.shows_captions:
                matching = next((method for method, row in methods.items() if row.match.reads_captions), None)
                if matching:
                    raise ValueError(
                        f"studies.{name}.methods: {matching} matches captions of the whole pool, which a service does "
                        "not show: write `match: clip` in its row, or use `pool: {source: index}`"
                    )
            if getattr(study.backbone, "train", None) and not getattr(study.clip, "train", None):
                raise ValueError(f"studies.{name}.backbone.train needs `clip.train`, whose text encoder it takes")
        return self

    def _check_backbones(self, name: str, study: Study) -> None:
        """That there is the backbone by which each method's images are generated. Raises ValueError."""
        known = ", ".join(study.backbones)
        for method, row in self.methods_of(study).items():
            if row.backbone and row.backbone not in study.backbones:
                raise ValueError(
                    f"studies.{name}.backbones: there is no {row.backbone!r}, by which {method} is generated"
                    f"{did_you_mean(row.backbone, study.backbones)} (known: {known or 'none'})"
                )
            if row.start.is_generated and study.backbone_of(row) is None:
                choose = f"; or write which of {known} generates {method}, as `backbone` in its row" if known else ""
                raise ValueError(f"studies.{name}: its methods need the section `backbone`, which is missing{choose}")
        if small := next((key for key, section in study.backbones.items() if section.train), None):
            raise ValueError(f"studies.{name}.backbones.{small}: only `backbone` can be trained; give it a `model`")

    def _check_added(self, name: str, study: Study) -> None:
        """That the study says of each method where its images lie, and of no other. Raises ValueError."""
        elsewhere = [method for method, row in self.methods.items() if row.start.is_external]
        for method in self.methods_of(study):
            if method in elsewhere and method not in study.added:
                raise ValueError(
                    f"studies.{name}.added: say where the images of {method} lie, e.g. `added: {{{method}: data/mine}}`"
                )
        for method in study.added:
            if method not in elsewhere:
                known = f"known: {', '.join(elsewhere)}" if elsewhere else "no method has it"
                raise ValueError(
                    f"studies.{name}.added: there is no method {method!r} whose images are made elsewhere, with "
                    f"`start: folder`{did_you_mean(method, elsewhere)} ({known})"
                )

    def _check_filters(self, name: str, study: Study) -> None:
        """That there are the models by whose scores images are filtered. Raises ValueError."""
        detects = study.clip is not None or study.audit.detector is not None
        for method, row in self.methods_of(study).items():
            rule = row.filter
            if rule is None:
                continue
            if (rule.by.needs_clip and study.clip is None) or (rule.by.needs_embedding and not detects):
                raise ValueError(
                    f"studies.{name}: {method} is filtered by {rule.by.name}, which needs the section `clip`; write "
                    "it, or filter by another score, e.g. `by: confidence`"
                )

    def _check_classifiers(self, name: str, study: Study) -> None:
        """That each classifier can be trained as each method's row says. Raises ValueError."""
        if MAIN in study.classifiers:
            raise ValueError(
                f"studies.{name}.classifiers: {MAIN} is the name of the study's `classifier`; choose another one"
            )
        for key, section in study.all_classifiers.items():
            place = "classifier" if key == MAIN else f"classifiers.{key}"
            for method in study.methods:
                try:
                    section.train.check_recipe(self.methods[method].recipe)
                except ValueError as error:
                    raise ValueError(f"studies.{name}.{place}.train: {method} cannot be trained so: {error}") from None

    def _check_safety(self, name: str, study: Study) -> None:
        """That there is a safety checker where one is wanted. Raises ValueError."""
        checked = next((method for method, row in self.methods_of(study).items() if row.start.is_checked), None)
        if checked and study.safety.is_backbones and study.backbone is None:
            raise ValueError(
                f"studies.{name}.safety: the images of {checked} are checked by what a backbone ships, and the study "
                "has no `backbone`: write `safety: {model: CompVis/stable-diffusion-safety-checker}`, or "
                "`safety: {model: none}` to check nothing"
            )


def draw_names(name: str, study: Study) -> list[str]:
    """The studies that are the draws of a study's target, itself the first. A user's names have no hyphen."""
    return [name, *(f"{name}-{number}" for number in range(2, study.subsamples + 1))]


def first_draw(name: str) -> str:
    """The study whose target a study, itself or another, is a draw of."""
    return name.partition("-")[0]


def with_draws(config: Config) -> Config:
    """The configuration with a study of its own for each further draw of a target: the same, of another seed."""
    studies = {}
    for name, study in config.studies.items():
        for number, draw in enumerate(draw_names(name, study), 1):
            seed = derive(study.seed, "subsample", number) % 2**31
            studies[draw] = study if number == 1 else study.model_copy(update={"seed": seed, "subsamples": 1})
    return config.model_copy(update={"studies": studies})


def parse(raw: dict) -> Config:
    """Check a configuration as Snakemake merged it. Raises ConfigError with one sentence per mistake."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(raw, problem) for problem in error.errors())) from None


def _sentence(raw: dict, problem: dict) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        section = _section_at(problem["loc"][:-1])
        known = list(section.model_fields) if section else []
        key = problem["loc"][-1]
        return f"{place}: there is no such key{did_you_mean(key, known)} (known: {', '.join(known)})"
    if problem["type"] == "missing":
        return f"{place}: this key is missing"
    message = problem["msg"].removeprefix("Value error, ")
    said = f" (it says {problem['input']!r})" if isinstance(problem["input"], str | int | float | None) else ""
    return f"{place}: {message}{said}" if place else message


def _section_at(location) -> type[Section] | None:
    """The section that a path of keys leads to."""
    section: type[Section] | None = Config
    keys = list(location)
    while keys and section:
        annotation = section.model_fields[keys.pop(0)].annotation
        inner = [kind for kind in kinds_in(annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        section = inner[0] if inner else None
        if keys and getattr(annotation, "__origin__", None) is dict:
            keys.pop(0)  # a name of the user's: methods.NAME, studies.NAME, studies.NAME.added.METHOD
    return section


def kinds_in(annotation):
    yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from kinds_in(argument)


def parts_of(count: int, size: int) -> int:
    """Number of jobs when ``count`` things are cut into jobs of at most ``size``."""
    return max(1, math.ceil(count / size))
