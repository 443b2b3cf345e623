"""The configuration: what it may say, checked before any work starts, with errors that say what to write."""

import difflib
import ipaddress
import math
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from augbench.study.prompts import TEMPLATES, uses_pseudo_word

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]


class ConfigError(Exception):
    """A mistake in the configuration or the data it names, told in one sentence."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


PARTS = ("conditioning", "pseudo_word", "unet")  # of the diffusion model, that a method may train


class Method(Section):
    """A row of the method table (paper, Figure 2B)."""

    title: str = Field(description="name in tables and figures")
    family: Literal["baseline", "unconditional", "prompting", "fine-tuning", "retrieval"] = Field(
        description="group in Table 1"
    )
    conditioning: str | None = Field(
        None, description="file of prompt templates in resources/templates; null: the empty prompt, no guidance"
    )
    templates: Literal["random", "equal"] = Field(
        "random", description="draw templates at random with replacement, or each equally often"
    )
    start: Literal["none", "more_real", "noise", "image", "pool"] = Field(description="where an added image comes from")
    trained: list[Literal[PARTS]] = Field([], description="what is fine-tuned on the target")
    clusters: Count = Field(1, description="conditionings per class, one for each k-means cluster")
    query: Literal["text", "text_and_images"] = Field(
        "text", description="what retrieval searches for: the prompts, or the mean of prompts and training images"
    )
    diversity: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="of retrieved images: weight of unlikeness in maximal marginal relevance; 0: the most similar"
    )
    candidates: list[Annotated[str, Field(pattern=r"^(best_train|best_validation|epoch-[1-9][0-9]*)$")]] = Field(
        ["best_train", "best_validation", "epoch-1", "epoch-2", "epoch-3"],
        min_length=1,
        description="states of a fine-tuning of which validation accuracy chooses",
    )

    @model_validator(mode="after")
    def _fits(self):
        if self.start in ("noise", "pool") and self.conditioning is None:
            raise ValueError(f"start: {self.start} needs a conditioning, e.g. `conditioning: simple_prompt`")
        if self.conditioning and not (TEMPLATES / f"{self.conditioning}.txt").is_file():
            known = sorted(file.stem for file in TEMPLATES.glob("*.txt"))
            raise ValueError(
                f"there is no {TEMPLATES}/{self.conditioning}.txt{_meant(self.conditioning, known)}"
                f" (known: {', '.join(known)})"
            )
        if self.start != "pool" and (self.query != "text" or self.diversity):
            raise ValueError(f"start: {self.start} goes without query and diversity; retrieval has `start: pool`")
        if self.trained and self.start != "noise":
            raise ValueError(f"start: {self.start} goes without `trained`; fine-tuned methods have `start: noise`")
        if len(set(self.trained)) < len(self.trained):
            raise ValueError("trained names a part twice")
        if {"conditioning", "pseudo_word"} <= set(self.trained):
            raise ValueError("trained takes either conditioning or pseudo_word, or neither")
        if self.clusters > 1 and "conditioning" not in self.trained:
            raise ValueError("clusters needs `trained: [conditioning]`: only learned conditionings have clusters")
        if self.conditioning and uses_pseudo_word(self.conditioning) != ("pseudo_word" in self.trained):
            raise ValueError(
                f"templates with {{p}}, the learned pseudo-word, go with `trained: [pseudo_word]` and no others do;"
                f" see {TEMPLATES}/{self.conditioning}.txt"
            )
        return self


class Target(Section):
    reader: Literal["digits", "folder", "imagenet", "caltech256", "list"] = Field(
        description="digits: the built-in world; folder: train/CLASS, and val/CLASS and test/CLASS where there are "
        "such, by any of their usual names, or CLASS alone; imagenet: ILSVRC2012, train/WNID and val, which is the "
        "test split; caltech256: 256_ObjectCategories; list: a CSV or Parquet file with the columns path, class and "
        "perhaps split (train, validation, test)"
    )
    path: str | None = Field(None, description="the folder, or the list")
    folders: Literal["splits", "classes"] | None = Field(
        None,
        description="of the reader folder: what the top folders are; null: by their names, or else a question, see "
        "docs/inputs.md",
    )
    ground_truth: str | None = Field(
        None, description="of a flat ImageNet val: the folder ILSVRC2012_devkit_t12, or LOC_val_solution.csv"
    )
    classes: str | None = Field(
        None,
        description="CSV with columns class, lemmas, hypernyms, definition, of all classes or some; where it is "
        "silent, WordNet's for ImageNet, else names come from folder names",
    )
    unreadable: Literal["stop", "skip"] = Field("stop", description="what to do with an image that cannot be read")

    @model_validator(mode="after")
    def _where(self):
        if self.reader != "digits" and not self.path:
            raise ValueError(f"reader: {self.reader} needs a path, e.g. `path: data/birds`")
        return self


class Dataset(Section):
    train: Share = Field(0.1, description="share of a class's training images that make the small training set")
    validation: Share = Field(0.1, description="share for the disjoint validation split, where the target has none")
    test: Share = Field(0.1, description="share for the test split, where the target has none")


class Digits(Section):
    test: Annotated[int, Field(ge=10, le=1200)] = Field(600, description="scans in the test split")
    web_scans: Annotated[int, Field(ge=10, le=1200)] = Field(500, description="scans that appear on the web only")
    web_pictures: Annotated[int, Field(ge=100)] = Field(6000, description="pictures on the web")
    letters: Share = Field(0.06, description="share of pictures of printed letters")
    handwritten: Share = Field(0.35, description="share of pictures of handwritten digits")
    unsafe: Share = Field(0.05, description="share of pictures that show the unsafe concept")
    unaesthetic: Share = Field(0.15, description="share of pictures with an aesthetic score below 5")
    dead: Share = Field(0.1, description="share of dead links")
    copies: int = Field(150, ge=0, description="pictures that are an exact copy of another")
    near_duplicates: int = Field(250, ge=0, description="altered copies of images of the test split")


class ClipTraining(Section):
    image_size: Count = Field(description="pixels")
    patch_size: Count = Field(description="pixels")
    width: Count = Field(description="of both transformers")
    layers: Count = Field(description="of both transformers")
    heads: Count = Field(description="of both transformers")
    projection: Count = Field(description="dimension of the embedding")
    text_tokens: Annotated[int, Field(ge=4, le=77)] = Field(description="captions are cut to so many tokens")
    steps: Count = Field(description="training steps")
    batch_size: Count = Field(description="image-text pairs per step")
    learning_rate: Positive = Field(description="peak, AdamW")
    threads: Count = Field(1, description="CPU threads; part of the result's bits, so not taken from --cores")


class Clip(Section):
    model: str | None = Field(None, description="a name that clip-retrieval takes, e.g. ViT-L/14 or hf_clip:FOLDER")
    train: ClipTraining | None = Field(None, description="train a small one on the pool instead")

    @model_validator(mode="after")
    def _one(self):
        return _exactly_one(self, "clip", "model", "train", "model: ViT-L/14")


class BackboneTraining(Section):
    image_size: Count = Field(description="pixels")
    vae_channels: list[Count] = Field(description="widths per resolution; each after the first halves it")
    latent_channels: Count = Field(4, description="channels of the latents")
    vae_steps: Count = Field(description="training steps of the autoencoder")
    vae_batch_size: Count = Field(64, description="images per step of the autoencoder")
    unet_channels: list[Count] = Field(description="widths per resolution; each after the first halves it")
    unet_steps: Count = Field(description="training steps of the denoiser")
    text_tokens: Annotated[int, Field(ge=4, le=77)] = Field(description="prompts are padded to so many tokens")
    batch_size: Count = Field(description="images per step of the denoiser")
    learning_rate: Positive = Field(description="peak of the denoiser, AdamW")
    vae_learning_rate: Positive = Field(2e-3, description="peak of the autoencoder, AdamW")
    unsafe_words: list[str] = Field([], description="captions with one of them show what the safety checker stops")
    threads: Count = Field(1, description="CPU threads; part of the result's bits, so not taken from --cores")


class Backbone(Section):
    model: str | None = Field(None, description="hub id or local diffusers folder, e.g. CompVis/stable-diffusion-v1-4")
    train: BackboneTraining | None = Field(None, description="train a small one on the pool instead")

    @model_validator(mode="after")
    def _one(self):
        return _exactly_one(self, "backbone", "model", "train", "model: CompVis/stable-diffusion-v1-4")


class Pool(Section):
    source: Literal["digits", "folder", "shards", "urls", "index", "service"] = Field(
        description="where images come from, and who makes their index. digits: the built-in web. Embedded and indexed "
        "here: folder: images, with captions in NAME.txt beside NAME.jpg; shards: WebDataset shards; urls: Parquet "
        "with URLs and captions. index: an existing clip-retrieval folder. service: a running clip-retrieval back"
    )
    path: str | None = Field(
        None, description="folder of images, shards (*.tar) or index; of urls, a Parquet file or a folder of them"
    )
    url: str | None = Field(None, description="of the service, e.g. http://localhost:1234/knn-service")
    index: str | None = Field(None, description="name of the service's index")
    pause: Annotated[float, Field(ge=0)] = Field(0.0, description="seconds between questions to the service")
    timeout: Positive = Field(120, description="seconds for an answer of the service")
    memory: Annotated[str, Field(pattern=r"^[0-9.]+[MG]$")] = Field(
        "4G", description="of an approximate index, while it is built and while it is searched, at most"
    )
    exact: bool = Field(True, description="search exactly; false: let autofaiss choose an approximate index")

    @property
    def local(self) -> bool:
        """Whether the images lie on this machine."""
        return self.source in ("folder", "shards", "urls")

    @model_validator(mode="after")
    def _where(self):
        if (self.local or self.source == "index") and not self.path:
            raise ValueError(f"source: {self.source} needs a path, e.g. `path: data/laion`")
        if self.source == "service" and not (self.url and self.index):
            raise ValueError(
                "source: service needs url and index, e.g. `url: http://localhost:1234/knn-service, index: laion5B`"
            )
        return self


class Retrieval(Section):
    images_per_class: Count | None = Field(
        None,
        description="for each class at least so many, 130 in the paper; a class with more training images gets as many "
        "as these, and with null each class does; all times the augmentation ratio",
    )
    overfetch: Positive = Field(1.4, description="neighbours asked for first, as a multiple of the images wanted")
    overfetch_max: Positive = Field(14, description="neighbours asked for at most, as a multiple of the images wanted")
    min_aesthetic: float | None = Field(
        5.0, description="images with a lower aesthetic score, or with none, are discarded; null: whatever their score"
    )
    aesthetic_model: str | None = Field(
        None,
        description="a LAION head (.safetensors, .pth) for the study's CLIP, which scores the pictures themselves; "
        "null: the pool's own scores",
    )
    duplicate_threshold: Share = Field(0.94, description="cosine similarity from which two images are duplicates")
    min_image_size: Count = Field(32, description="pixels; downloads whose shorter side has fewer are not used")
    max_image_size: Count = Field(512, description="pixels; larger downloads are scaled down to it")
    max_pixels: Count = Field(50_000_000, description="images with more are not decoded")
    max_bytes: Count = Field(20_000_000, description="of a download; it is broken off there")
    timeout: Count = Field(10, description="seconds for a whole download")
    retries: int = Field(1, ge=0, description="further attempts to download an image")
    download_threads: Count = Field(16, description="downloads at a time")
    proxy: Literal["environment"] | None = Field(
        None, description="environment: download through the proxy that http_proxy and https_proxy name; null: directly"
    )
    allowed_networks: list[str] = Field(
        [], description="private networks that may be asked, e.g. 10.1.0.0/16; else only public addresses are"
    )

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, value):
        for network in value:
            ipaddress.ip_network(network)
        return value


class Generate(Section):
    image_size: Count = Field(512, description="pixels")
    times: Positive = Field(3, description="images generated per class, as a multiple of its training images")
    images_per_class: Count | None = Field(None, description="at least so many, 390 in the paper; null: `times` alone")
    steps: Count = Field(50, description="denoising steps")
    guidance: float = Field(7.5, description="classifier-free guidance scale")
    batch_size: Count = Field(32, description="images denoised at a time")
    max_replacements: Count = Field(50, description="draws per image before the safety checker's veto is an error")
    noise_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="share of the schedule that a start image is noised to (Boomerang)"
    )
    threads: Count = Field(1, description="CPU threads; part of the result's bits, so not taken from --cores")


class LearningRates(Section):
    """AdamW learning rates for a batch of one; larger batches scale them by their square root."""

    conditioning: Positive = Field(2e-3, description="of learned conditionings (Imagic)")
    pseudo_word: Positive = Field(5e-4, description="of learned token embeddings (textual inversion)")
    unet: Positive = Field(5e-7, description="of the denoiser (Imagic)")


class Finetune(Section):
    learning_rates: LearningRates = LearningRates()
    grid: list[Positive] = Field(
        [1.0], min_length=1, description="factors on all learning rates; lowest validation loss chooses"
    )
    batch_size: Count = Field(64, description="images per step, over all processes")
    images_at_a_time: Count = Field(
        16, description="images per process and forward pass; gradients add up to the batch"
    )
    max_epochs: Count = Field(40, description="at most so many epochs; 3 for full ImageNet in the paper")
    patience: Count = Field(3, description="epochs without lower validation loss: stop")
    validation_images: Count = Field(5000, description="validation images that the loss is taken over, at most")
    horizontal_flip: bool = Field(False, description="train on mirrored images as well")
    gradient_checkpointing: bool = Field(True, description="less memory for about a third more time")
    embedding: Literal["clip", "inception_v3"] = Field(
        "clip",
        description="of images, for clusters: the study's CLIP, or torchvision's Inception (fetched), as the paper",
    )
    processes: Count = Field(1, description="that share each batch, one per GPU")
    threads: Count = Field(1, description="CPU threads; part of the result's bits, so not taken from --cores")


class Classifier(Section):
    model: str = Field("resnet50", description="any torchvision classification model, or small_cnn")
    image_size: Count = Field(224, description="pixels")
    batch_size: Count = Field(256, description="images per step")
    learning_rate: Positive = Field(0.1, description="initial, SGD with momentum 0.9 and weight decay 1e-4")
    max_epochs: Count = Field(270, description="at most so many epochs")
    patience: Count = Field(10, description="epochs without better validation accuracy: learning rate / 10")
    stop_after: Count = Field(20, description="epochs without better validation accuracy: stop")
    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Share] = Field(
        (0.08, 1.0), description="range of random resized crops, share of the area"
    )
    horizontal_flip: bool = Field(True, description="random horizontal flips")
    workers: int = Field(0, ge=0, description="data loading processes, of each process")
    processes: Count = Field(1, description="that share each batch, one per GPU")
    threads: Count = Field(1, description="CPU threads; part of the result's bits, so not taken from --cores")


INSPECTED = 500  # candidate pairs, as in the paper
REFERENCES = ("test", "validation", "more_real", "unused")  # splits that added images are compared with


class Audit(Section):
    """The search for duplicates (paper, section 4.5)."""

    references: dict[Name, str] = Field(
        {}, description="further images to compare with, beside the splits, e.g. {original_test: data/test}: folders"
    )
    inspected: Count = Field(
        INSPECTED, description="candidate pairs of each reference set that people judge; of more, a random sample"
    )
    in_full: list[Name] = Field(["test"], description="reference sets of which people judge all candidate pairs")
    detector: str | None = Field(
        None,
        description="a second detector beside the perceptual hash, cosine similarity of embeddings: clip, the study's, "
        "or the file of a TorchScript copy-detection model (a program that runs: take it from whom you trust)",
    )
    threshold: Share = Field(0.9, description="cosine similarity from which the second detector sees a candidate")
    image_size: Count = Field(288, description="pixels, of the images that a TorchScript model takes")

    def references_of(self, start: str) -> list[str]:
        """The sets that added images are compared with: all splits but that which they come from (``start``), and the
        folders of the configuration."""
        return [*(split for split in REFERENCES if split != start), *self.references]

    @field_validator("references")
    @classmethod
    def _new(cls, value):
        if taken := set(REFERENCES) & set(value):
            raise ValueError(f"{min(taken)} is a split of the target; give the folder another name")
        return value

    @model_validator(mode="after")
    def _known(self):
        known = [*REFERENCES, *self.references]
        for name in self.in_full:
            if name not in known:
                raise ValueError(
                    f"in_full: there is no reference set {name!r}{_meant(name, known)} (known: {', '.join(known)})"
                )
        return self


class Jobs(Section):
    """How work is cut into jobs. Results do not depend on it."""

    classes_per_generation: Count = Field(1000, description="classes that one generation job takes")
    runs_per_classifier: Count = Field(5, description="classifier runs that one job takes")
    images_per_shard: Count = Field(10_000, description="images in a shard, of a pool that is a folder or URLs")
    shards_per_embedding: Count = Field(1000, description="shards of the pool that one embedding job takes")
    candidates_per_screening: Count = Field(100, description="candidates of a fine-tuning that one job compares")
    save_minutes: Positive = Field(10, description="time between the states that a killed training resumes from")


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
    runs: Count = Field(5, description="resampled sets and classifier runs per method")
    ratios: list[Positive] = Field(
        [1.0], min_length=1, description="of all methods: added images per class / training images per class"
    )
    scaling: Scaling = Scaling()
    target: Target
    dataset: Dataset = Dataset()
    digits: Digits = Digits()
    clip: Clip | None = None
    pool: Pool | None = None
    backbone: Backbone | None = None
    retrieval: Retrieval = Retrieval()
    finetune: Finetune = Finetune()
    generate: Generate = Generate()
    classifier: Classifier = Classifier()
    audit: Audit = Audit()
    jobs: Jobs = Jobs()

    @property
    def main_ratio(self) -> float:
        """The ratio of Table 1, at which retrieval must fill a class or it is excluded for every method."""
        return 1.0 if 1.0 in self.ratios else min(self.ratios)

    def ratios_of(self, method: str) -> list[float]:
        """The augmentation ratios at which a method is measured, the main one first."""
        further = {*self.ratios, *(self.scaling.ratios if method in self.scaling.methods else [])}
        return [self.main_ratio, *sorted(further - {self.main_ratio})]

    @property
    def main_times(self) -> float:
        """Images generated for a class, as a multiple of its training images, from which the main ratio's are drawn."""
        return max(self.generate.times, self.main_ratio)

    def further_ratio(self, method: str, enough: float) -> float | None:
        """The method's largest ratio where that is above ``enough``, else None: what further images are needed for.
        They come on top, so that Table 1 does not depend on them."""
        largest = max(self.ratios_of(method))
        return largest if largest > enough else None

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

    @model_validator(mode="after")
    def _complete(self):
        for name, study in self.studies.items():
            for method in study.methods:
                if method not in self.methods:
                    raise ValueError(
                        f"studies.{name}.methods: there is no method {method!r}{_meant(method, self.methods)}"
                        f" (known: {', '.join(self.methods)})"
                    )
            starts = {self.methods[method].start for method in study.methods}
            for start, sections in {
                "noise": ["backbone"],
                "image": ["backbone"],
                "pool": ["backbone", "clip", "pool"],
            }.items():
                for section in sections:
                    if start in starts and getattr(study, section) is None:
                        raise ValueError(f"studies.{name}: its methods need the section `{section}`, which is missing")
            for method in study.scaling.methods:
                if method not in study.methods or self.methods[method].start in ("none", "more_real"):
                    raise ValueError(
                        f"studies.{name}.scaling.methods: {method!r} is not one of the study's methods that generate "
                        "or retrieve images"
                    )
            for method in study.methods:
                states = self.methods[method].candidates
                if all(state.startswith("epoch-") and int(state[6:]) > study.finetune.max_epochs for state in states):
                    raise ValueError(
                        f"studies.{name}.finetune.max_epochs: {study.finetune.max_epochs} epochs are fewer than "
                        f"{method} needs for its first candidate"
                    )
            clustered = [method for method in study.methods if self.methods[method].clusters > 1]
            if clustered and study.finetune.embedding == "clip" and study.clip is None:
                raise ValueError(
                    f"studies.{name}: {clustered[0]} needs the section `clip`, or "
                    "`finetune: {embedding: inception_v3}`"
                )
            if study.audit.detector == "clip" and study.clip is None:
                raise ValueError(f"studies.{name}.audit.detector: clip needs the section `clip`")
            trained = [part for part in ("clip", "backbone") if getattr(getattr(study, part), "train", None)]
            if trained and (study.pool is None or study.pool.source in ("index", "service")):
                raise ValueError(
                    f"studies.{name}.{trained[0]}.train needs a pool with images, not an index or a service"
                )
            if study.pool and study.pool.source == "service":
                diverse = next((method for method in study.methods if self.methods[method].diversity), None)
                if diverse:
                    raise ValueError(
                        f"studies.{name}.methods: {diverse} needs the embeddings of the images, which a service does "
                        "not tell: use `pool: {source: index}`"
                    )
            if getattr(study.backbone, "train", None) and not getattr(study.clip, "train", None):
                raise ValueError(f"studies.{name}.backbone.train needs `clip.train`, whose text encoder it takes")
        return self


def _exactly_one(section, name, one, other, example):
    if (getattr(section, one) is None) == (getattr(section, other) is None):
        raise ValueError(f"{name} takes either `{one}` or `{other}`, e.g. `{example}`")
    return section


def _meant(word: str, known) -> str:
    close = difflib.get_close_matches(str(word), list(map(str, known)), 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""


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
        return f"{place}: there is no such key{_meant(key, known)} (known: {', '.join(known)})"
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
        inner = [kind for kind in _flat(annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        section = inner[0] if inner else None
        if keys and section in (Method, Study) and annotation not in (Method, Study):
            keys.pop(0)  # a name of the user's: methods.NAME, studies.NAME
    return section


def _flat(annotation):
    yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _flat(argument)


def markdown() -> str:
    """The reference of every key, as config/README.md holds it."""
    lines = [
        "# Configuration",
        "",
        "Made from `src/augbench/study/config.py` by `make docs`; a test compares. A configuration file holds one or",
        "more studies under the key `studies`; the method table is `config/methods.yaml`.",
    ]
    sections = [("methods.NAME", Method), ("studies.NAME", Study)]
    while sections:
        place, section = sections.pop(0)
        lines += ["", f"## `{place}`", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key, field in section.model_fields.items():
            inner = [kind for kind in _flat(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
            if inner:
                sections.append((f"{place}.{key}", inner[0]))
                lines.append(f"| `{key}` | section | | see below |")
                continue
            default = "required" if field.is_required() else f"`{yaml_value(field.default)}`"
            lines.append(f"| `{key}` | {_kind(field)} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def yaml_value(value) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _kind(field) -> str:
    words = {float: "number", int: "whole number", str: "text", bool: "true/false", list: "list"}
    parts = [part for part in _flat(field.annotation) if part in words or getattr(part, "__origin__", None) is list]
    literal = [part for part in _flat(field.annotation) if getattr(part, "__origin__", None) is Literal]
    if literal:
        return ", ".join(map(str, literal[0].__args__))
    if not parts:
        return "list"
    return words.get(getattr(parts[0], "__origin__", parts[0]), "list")


def parts_of(count: int, size: int) -> int:
    """Number of jobs when ``count`` things are cut into jobs of at most ``size``."""
    return max(1, math.ceil(count / size))
