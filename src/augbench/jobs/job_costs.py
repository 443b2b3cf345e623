"""What a study's jobs need: time, memory, GPUs and disk of each kind of job, from the work that it does.

A method of :class:`JobCosts` has the name of a rule and takes the rule's wildcards. The rules ask it for the resources
of a job, the table of costs and the check of the disk for those of all jobs.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from augbench.classifier import crops
from augbench.jobs import resources
from augbench.jobs.backbone_costs import BackboneCosts
from augbench.jobs.paths import SPLITS
from augbench.jobs.resources import HOUR
from augbench.jobs.study_files import StudyFiles
from augbench.jobs.study_size import StudySize, study_size
from augbench.study import classes, embedding_pairs
from augbench.study.architectures import SIDE
from augbench.study.parts import Part
from augbench.study.readers.layout import HELD_OUT
from augbench.study.recipes import PLAIN, Recipe
from augbench.study.sections.classifier import MAIN
from augbench.study.sections.diffusion import Sampling

T4, V100 = "T4", "V100"  # GPUs by whose hours work is estimated, those of the paper
GIGABYTE = 1000  # in megabytes
MAPPED = 20 * GIGABYTE  # of a mapped file: more of it may be read from the disk again
CARD = 2.5 * GIGABYTE  # of a classifier's process: what a GPU's libraries take, and processes that read images
SAMPLES = 2 * GIGABYTE  # of metrics of image sets: inner products of 5,000 features with each other, several times
SCORED = 10_000  # images of which embeddings are in memory when they are scored
SCORES_BYTES = 250  # of an image's scores
CHECKER_BYTES = 1.2e9  # of Stable Diffusion's safety checker
WIDTH = 768  # of the features of a probe, say
FEATURE_BYTES = 4 * WIDTH  # of an image
PROBE_PASSES = (
    2500  # over all images, until the last of a probe's strengths is fitted: products of features and weights
)
PRODUCTS = 2e11  # a second, in double precision, on a T4
VECTOR_BYTES = 4 * 768  # of an image's embedding by the audit's second detector


# Rules whose outputs all draws of a target share.
SHARED = frozenset({"pack_pool", "download_pool", "embed_pool", "index_pool", "index_captions", "train_clip"})
SHARED |= {"fetch_backbone", "fetch_named_backbone", "fetch_safety_checker"}
SHARED |= {"train_vae", "train_unet", "train_safety_checker"}


class Need(NamedTuple):
    """What one job needs: ``seconds`` by the clock, ``megabytes`` of memory, ``gpus`` and the ``card`` by whose time
    the seconds are estimated, and the bytes that it ``writes`` to stay, and ``drops`` when what needs them is done."""

    seconds: float = 60
    megabytes: float = 1000
    gpus: int = 0
    card: str = T4
    writes: float = 0
    drops: float = 0


SMALL = 64  # pixels a side, up to which the images of a classifier are taken to fit into memory: none reads them ahead


class JobCosts:
    """Needs and cores of the jobs of one study."""

    def __init__(self, files: StudyFiles):
        self.files, self.study = files, files.study
        self._size_at = functools.cache(lambda changed: study_size(files))  # asked for by each of thousands of jobs

    @property
    def size(self) -> StudySize:
        """How many images the study deals with, as far as is known by now."""
        table = Path(self.files.classes)
        return self._size_at(table.stat().st_mtime_ns if table.is_file() else None)

    @property
    def train(self) -> int:
        return self.size.images["train"]

    # Cores.

    @property
    def cores(self) -> int:
        """For work that takes as many as there are: one where it is done before another job could have begun."""
        return 2 if self.files.generation_jobs > 1 else 1

    @property
    def target_cores(self) -> int:
        """For reading the images of the target once."""
        return min(8, 1 + self.size.target // 20_000)

    @property
    def classifier_cores(self) -> int:
        """Of each process of a training, and of what reads images for it."""
        return self.cores_of(MAIN)

    def cores_of(self, classifier: str) -> int:
        section = self.study.all_classifiers[classifier]
        return section.processes * (section.threads + self._readers(classifier))

    def _readers(self, classifier: str = MAIN) -> int:
        """Processes that read images ahead, of each process of a classifier."""
        section = self.study.all_classifiers[classifier]
        if section.workers is not None:
            return section.workers
        return crops.READERS if section.pixels > SMALL else 0

    @property
    def finetuning_cores(self) -> int:
        return self.study.finetune.processes * self.study.finetune.threads

    # Diffusion models.

    @functools.cache  # noqa: B019 (as many as studies)
    def backbone(self, name: str | None = None) -> BackboneCosts:
        """The backbone of a name, or the study's own."""
        section = self.study.backbones[name] if name else self.files.backbone
        return BackboneCosts(section, self.study.clip)

    def backbone_of(self, method: str) -> BackboneCosts:
        return self.backbone(self.files.methods[method].backbone)

    def generation(self, method: str) -> Sampling:
        """The section ``generate`` as it holds for a method, with the pipeline's own values where it is open."""
        return self.backbone_of(method).with_defaults(self.files.generation(method))

    # Numbers of images.

    def added(self, method: str, ratio: str | float) -> int:
        """Images in a set that a method adds at a ratio."""
        start = self.study_start(method)
        if not start.adds_images:
            return 0
        if start.split:
            images = self.size.images[start.split]
            return min(images, sum(self.size.filled)) if self.size.filled else images
        return sum(classes.added(count, float(ratio)) for count in self.size.wanted)

    def study_start(self, method: str):
        return self.files.methods[method].start

    def available(self, method: str, ratio: float) -> int:
        """Images from which a method's sets at a ratio are drawn."""
        start = self.study_start(method)
        if start.is_retrieved:
            return self.retrieved(ratio)
        if start.is_generated:
            return self.generated(method, max(ratio, self.files.main_times(method)))
        return self.added(method, ratio)

    def generated(self, method: str, times: float) -> int:
        fixed = self.files.generation(method).images_per_class
        return sum(classes.generated(count, times, fixed) for count in self.size.wanted)

    def retrieved(self, ratio: float) -> int:
        least = self.study.retrieval.images_per_class or 0
        return sum(math.ceil(ratio * max(least, count)) for count in self.size.wanted)

    def candidates_of_class(self, method: str, count: int) -> int | None:
        """Images of a class to which ratio 1 adds ``count``, from which a method's sets are drawn at the main ratio;
        None where others say how many there are."""
        start = self.study_start(method)
        if start.is_retrieved:
            return math.ceil(self.study.main_ratio * max(self.study.retrieval.images_per_class or 0, count))
        if start.is_generated:
            fixed = self.files.generation(method).images_per_class
            return classes.generated(count, self.files.main_times(method), fixed)
        return None

    def distinct(self, method: str, ratios) -> int:
        """Images in all of a method's sets at these ratios, at most."""
        drawn = sum(self.added(method, ratio) for ratio in ratios) * self.study.runs
        return min(drawn, self.available(method, max(map(float, ratios))))

    def compared(self, method: str) -> int:
        """Images by which the candidates of a fine-tuning are compared."""
        first = sum(classes.added(count, self.study.main_ratio) for count in self.size.wanted)
        return len(self.files.methods[method].candidates) * first

    def to_generate(self, method: str, purpose: str) -> float:
        """Images that one job generates."""
        times = self.files.main_times(method)
        main, compared = self.generated(method, times), self.compared(method)
        further = self.generated(method, max(times, self.files.further_ratio(method) or 0)) - main
        chosen = compared / len(self.files.methods[method].candidates)
        images = {"base": main, "screen": compared, "selected": max(0, main - chosen), "further": further}
        return images[purpose] / self.files.generation_jobs

    # The target, the data set, and the digits world.

    def digits_target(self) -> Need:
        return Need()

    digits_web = digits_target

    def split_target(self) -> Need:
        images = self.size.target
        return Need(resources.hashing(images) / self.target_cores, 2000 + 2e-3 * images, writes=self._table(images))

    def dataset(self) -> Need:
        return Need(megabytes=2000, writes=self._table(self.size.target))

    def run_script(self, method: str) -> Need:
        """How long a user's script takes is not known."""
        return Need(4 * HOUR, 4000)

    def list_added(self, method: str) -> Need:
        images = self.added(method, max(self.files.wanted_ratios(method)))
        return Need(resources.hashing(images), 2000 + 2e-3 * images, writes=self._table(images))

    def score(self, method: str, extent: str) -> Need:
        """Images are hashed, embedded (with CLIP and, if there is one, the audit's detector) and classified. In memory
        are hashes and embeddings of those that they are compared with, and embeddings of a part of them."""
        images = self._candidates(method, extent)
        references = self.train + sum(self.size.images[split] for split in HELD_OUT)
        vectors = self._vectors(references + SCORED) if self.files.embedder else 0
        seconds = resources.hashing(images) + resources.scoring((2 + bool(self.files.embedder)) * images)
        compared = images * references * (resources.PER_COMPARED_PAIR + bool(vectors) * resources.PER_COMPARED_VECTOR)
        memory = resources.tables("score", images) + vectors
        return Need(seconds + compared, memory, 1, writes=2 * SCORES_BYTES * images)

    def filter_images(self, method: str, extent: str) -> Need:
        images = self._candidates(method, extent)
        return Need(megabytes=resources.tables("filter_images", images), writes=2 * self._table(images))

    def _candidates(self, method: str, extent: str) -> int:
        """Images that a method could add, up to the main ratio or beyond it."""
        if extent == "main":
            return self.available(method, self.study.main_ratio)
        return self.available(method, self.files.further_ratio(method)) - self.available(method, self.study.main_ratio)

    def resample(self, method: str, ratio: str) -> Need:
        memory = resources.tables("resample", self.available(method, float(ratio)))
        return Need(megabytes=memory, writes=self._table(self.study.runs * self.added(method, ratio)))

    def unite(self, method: str, ratio: str) -> Need:
        images = self.added(method, ratio)
        sets = self.study.runs * images
        return Need(
            megabytes=resources.tables("resample", len(self.files.shares(method)) * images), writes=self._table(sets)
        )

    def export(self, method: str, form: str) -> Need:
        return Need(resources.hashing(self.train + self.added(method, self.files.ratios(method)[0])), 2000)

    def _table(self, images: float) -> float:
        return images * resources.ROW_BYTES

    # Models.

    def fetch_backbone(self, backbone: str | None = None) -> Need:
        return Need(2 * HOUR, 2000, writes=self.backbone(backbone).fetched_bytes)

    def fetch_named_backbone(self, backbone: str) -> Need:
        return self.fetch_backbone(backbone)

    def fetch_safety_checker(self) -> Need:
        return Need(HOUR, 2000, writes=CHECKER_BYTES)

    def train_clip(self) -> Need:
        return Need(self._training_seconds("clip"), 3000, 1)

    def train_vae(self) -> Need:
        return Need(self._training_seconds("backbone", "vae_"), 3000, 1)

    def train_unet(self) -> Need:
        return Need(self._training_seconds("backbone", "unet_"), 3000, 1)

    def train_safety_checker(self) -> Need:
        return Need(600, 3000, 1)

    def _training_seconds(self, section: str, prefix: str = "") -> float:
        """Of a small model: ``clip``, or ``backbone`` with the prefix of the settings, ``vae_`` or ``unet_``."""
        settings = getattr(self.study, section).train.model_dump()
        batch_size = settings.get(f"{prefix}batch_size", settings["batch_size"])
        return resources.training(settings[f"{prefix}steps"] * batch_size, settings["image_size"])

    # The pool.

    def pack_pool(self, part: str) -> Need:
        images = self.study.jobs.images_per_shard
        return Need(resources.hashing(images), 2000, writes=images * resources.DOWNLOADED_BYTES)

    def download_pool(self, part: str) -> Need:
        images = self.study.jobs.images_per_shard
        return Need(resources.retrieval(images), 2000, writes=2 * images * resources.DOWNLOADED_BYTES)

    def embed_pool(self, part: str) -> Need:
        shards = min(len(self.files.pool_shards), self.study.jobs.shards_per_embedding)
        images = self.study.jobs.images_per_shard * shards
        return Need(resources.scoring(images), 4000, 1, writes=images * 2 * 768)

    def index_pool(self) -> Need:
        """Building an index takes more memory than searching it: 4G, say, in words of the configuration."""
        size = self.files.pool.memory
        return Need(2 * HOUR, 2000 + 2 * float(size[:-1]) * {"M": 1, "G": 1000}[size[-1]])

    def index_captions(self) -> Need:
        """How many captions a pool has is not known before it is read: some 20,000 a second go into the index."""
        return Need(2 * HOUR, 2000)

    # Retrieval.

    def retrieve(self, method: str) -> Need:
        images = self.retrieved(self.study.main_ratio)
        return self._retrieval(images, images)

    def retrieve_further(self, method: str) -> Need:
        further = self.retrieved(self.files.further_ratio(method))
        return self._retrieval(further - self.retrieved(self.study.main_ratio), further)

    def _retrieval(self, images: float, wanted: float) -> Need:
        """To retrieve so many ``images`` of those that are ``wanted``. Downloads and judging go side by side."""
        section = self.study.retrieval
        found = section.overfetch * images
        downloads = not self.files.pool.source.is_local
        seconds = resources.retrieval(images) if downloads else resources.hashing(found)
        networks = (not self.files.trains_backbone) + (section.aesthetic_model is not None)
        judging = resources.judging(found, networks, section.threads, section.gpu)
        copied = images * min(resources.DOWNLOADED_BYTES, resources.pictures(1, section.max_image_size, "jpeg", 95))
        return Need(
            self._scanning + max(seconds, judging),
            resources.tables("retrieve", section.overfetch_max * wanted),  # the most that it may have to consider
            int(section.gpu),
            writes=copied + downloads * found * resources.DOWNLOADED_BYTES,
        )

    @functools.cached_property
    def _scanning(self) -> float:
        """Seconds to search published embeddings."""
        pool = self.files.pool
        if not pool.source.is_scanned:
            return 0
        return resources.scanning(embedding_pairs.count(str(pool.path), pool.array), len(self.size.train))

    # Fine-tuning.

    def encode_latents(self, backbone: str | None = None) -> Need:
        model = self.backbone(backbone)
        seconds = resources.encoding(self._encoded, model.with_defaults(self.study.generate).image_size)
        return Need(seconds, model.megabytes, 1, writes=self._latents_bytes(model))

    def encode_named_latents(self, backbone: str) -> Need:
        return self.encode_latents(backbone)

    @property
    def _encoded(self) -> float:
        section = self.study.finetune
        validation = min(self.size.images["validation"], section.validation_images)
        return (1 + section.horizontal_flip) * (self.train + validation)

    def _mapped(self, backbone: BackboneCosts) -> float:
        """Megabytes of the latents, which all processes map together; float16 as of a GPU."""
        return min(self._latents_bytes(backbone) / 2e6, MAPPED)

    def _latents_bytes(self, backbone: BackboneCosts) -> float:
        """Mean and log-variance of each latent, float32."""
        channels, factor = backbone.latents
        side = backbone.with_defaults(self.study.generate).image_size
        return self._encoded * 2 * 4 * channels * (side / factor) ** 2

    def cluster(self) -> Need:
        images = self.train + self.size.images["validation"]
        return Need(resources.scoring(images), 4000 + 3 * 8e-3 * images, 1)

    def finetune(self, method: str, rate: str) -> Need:
        section, row, backbone = self.study.finetune, self.files.methods[method], self.backbone_of(method)
        side = backbone.with_defaults(self.study.generate).image_size
        work = backbone.family.work * resources.finetuning(self.train, self._epochs(method), side, row.trained)
        # What is learned of each class stays in the host's memory, with its two moments; of adapters, whose files are
        # in half precision, once more when they are written.
        own = [part for part in row.trained if not part.needs_full_precision]
        learned = (8 if row.per_class else 3) * self._candidate_bytes(own, method)
        model = any(part.needs_full_precision for part in row.trained) * 2 * backbone.denoiser[2]  # float32
        memory = 2 * GIGABYTE + section.processes * backbone.megabytes + (4 * model + learned) / 1e6
        memory += self._mapped(backbone)
        written = len(row.candidates) * self._candidate_bytes(row.trained, method)
        keep = self.study.jobs.keep_candidates
        return Need(
            work / section.processes,
            memory,
            section.processes,
            V100,
            writes=written if keep else 0,
            drops=0 if keep else written,
        )

    def _epochs(self, method: str) -> int:
        """A method that names epochs alone is trained no further."""
        names = self.files.methods[method].candidates
        numbered = [int(name[6:]) for name in names if name.startswith("epoch-")]
        most = self.study.finetune.max_epochs
        return min(most, max(numbered)) if len(numbered) == len(names) else most

    def _candidate_bytes(self, parts: Sequence[Part], method: str) -> float:
        row, classes = self.files.methods[method], len(self.size.train)
        sizes = classes, row.clusters, *self.backbone_of(method).denoiser
        return (classes if row.per_class else 1) * sum(part.candidate_bytes(*sizes) for part in parts)

    def screen(self, method: str, part: str) -> Need:
        """A classifier for each candidate of the job, trained on what is there and what is added to it."""
        candidates = len(self.files.methods[method].candidates) / self.files.screening_jobs(method)
        full = sum(self.size.filled) if self.size.filled else self.train
        return self._classifier(self.files.methods[method].recipe, self.train, self.study.main_ratio * full, candidates)

    def select(self, method: str) -> Need:
        return Need(megabytes=500, writes=self._candidate_bytes(self.files.methods[method].trained, method))

    # Generation.

    def generate(self, method: str, purpose: str, shard: str) -> Need:
        section, start, backbone = self.generation(method), self.study_start(method), self.backbone_of(method)
        images = self.to_generate(method, purpose)
        guided = self.files.methods[method].conditioning is not None and section.guidance > 1
        work = backbone.family.work * resources.sampling(images, start.steps(section), section.image_size)
        work /= 1 if guided else 2
        bytes = resources.pictures(1, section.image_size, section.format, section.quality)
        kept = images
        if purpose == "selected":  # with the chosen candidate's, by which it was compared
            kept = self.generated(method, self.files.main_times(method)) / self.files.generation_jobs
        memory = backbone.megabytes + (self._mapped(backbone) if start.begins_from_images else 0)
        dropped = purpose == "screen"
        writes, drops = (0, images * bytes) if dropped else (kept * bytes, 0)
        return Need(work, memory, 1, writes=writes, drops=drops)

    def generate_screened(self, method: str, purpose: str, shard: str) -> Need:
        return self.generate(method, purpose, shard)

    # Classifiers and the domain gap.

    def classify(self, method: str, ratio: str, runs: int, classifier: str = MAIN) -> Need:
        added = self.added(method, ratio)
        if classifier in self.files.probes:
            need = self._probes(added, runs)
        else:
            need = self._classifier(self.files.methods[method].recipe, self.train, added, runs, classifier)
        return need._replace(writes=runs * (self._weights_bytes(classifier) + 40 * self.size.images["test"]))

    classify_further = classify

    def list_test_set(self, set: str) -> Need:
        return Need(resources.hashing(self._reference(set)), 2000, writes=self._table(self._reference(set)))

    def evaluate(self, set: str, method: str, ratio: str) -> Need:
        """Each image is read and seen once by the classifier of each run."""
        images, runs = self._reference(set), self.study.runs
        memory = resources.classifier_tables(images, 1) + CARD
        return Need(runs * resources.scoring(images), memory, 1, writes=40 * runs * images)

    def evaluation(self) -> Need:
        return Need()

    def encode_features(self, classifier: str, images: str) -> Need:
        count = self.train + sum(self.size.images[split] for split in HELD_OUT)
        if images != SPLITS:
            method, ratio = images.split("/x")
            count = self.distinct(method, [ratio])
        section = self.study.all_classifiers[classifier]
        seconds = resources.scoring(count) * (section.pixels / SIDE) ** 2
        return Need(seconds, 4000 + count * FEATURE_BYTES / 1e6, 1, writes=count * FEATURE_BYTES)

    def _probes(self, added: float, runs: float) -> Need:
        """Features are in memory, and once more for those that are fitted, in double precision."""
        images = self.train + added + sum(self.size.images[split] for split in HELD_OUT)
        products = images * len(self.size.train) * WIDTH * PROBE_PASSES
        return Need(60 + runs * products / PRODUCTS, 4000 + 6 * images * FEATURE_BYTES / 1e6, 1)

    def _weights_bytes(self, classifier: str = MAIN) -> float:
        """Of a classifier, as far as they are trained: float32."""
        section = self.study.all_classifiers[classifier]
        if section.train.freezes:
            return len(self.size.train) * FEATURE_BYTES
        return 4 * section.library.parameters(section.model)

    def _classifier(
        self, recipe: Recipe, real: float, added: float = 0, runs: float = 1, classifier: str = MAIN
    ) -> Need:
        """One classifier after the other, each on all GPUs of the job."""
        section, images = self.study.all_classifiers[classifier], real + added
        drawn = recipe.mix.epoch_size(real, added) if recipe.mix else images
        epochs = section.budget.expected_epochs(drawn, section)
        work = runs * resources.classifier(drawn, epochs, section.pixels) / section.processes
        decoded = 4 * section.pixels**2 / section.crop_scale[0] * images
        kept = decoded / 1e6 if decoded <= crops.MEMORY else 0  # of each process: all images, or none
        memory = resources.classifier_tables(images, section.processes) + section.processes * (CARD + kept)
        return Need(work, memory, section.processes)

    def judge(self) -> Need:
        reserve = ["unused"] + ["more_real"] * (self.files.split("more_real") in self.files.reserve)
        images = sum(self.size.images[split] for split in reserve)
        return self._classifier(PLAIN, images)._replace(writes=self._weights_bytes())

    def zero_shot(self) -> Need:
        images = self.size.images["test"]
        return self._embedding(images)._replace(writes=self._table(images))

    def domain_gap(self) -> Need:
        added = sum(self.distinct(method, [self.files.ratios(method)[0]]) for method in self.files.adding)
        readers = max(1, self._readers())  # what it waits for
        most = max(self.distinct(method, self.files.ratios(method)[:1]) for method in self.files.adding)
        memory = resources.tables("domain_gap", most) + SAMPLES
        seconds = resources.scoring(self.size.images["test"] + added) / readers
        return Need(seconds + resources.PER_METRICS * len(self.files.adding), memory, 1)

    # The audit.

    def list_references(self, set: str) -> Need:
        return Need()

    def hash_references(self, set: str) -> Need:
        return Need(resources.hashing(self._reference(set)) / self.cores, 2000)

    def hash_added(self, method: str) -> Need:
        images = self.distinct(method, self.files.ratios(method))
        memory = resources.tables("hash_added", images)
        return Need(resources.hashing(images) / self.cores, memory, writes=20 * images)

    def embed_references(self, set: str) -> Need:
        return self._embedding(self._reference(set))

    def embed_added(self, method: str) -> Need:
        return self._embedding(self.distinct(method, self.files.ratios(method)))

    def _embedding(self, images: float) -> Need:
        return Need(resources.embedding(images), 6000 + self._vectors(images), 1, writes=images * VECTOR_BYTES)

    def _vectors(self, images: float) -> float:
        """Megabytes of the vectors of so many images, which are there twice while they are read or written."""
        return 2 * images * VECTOR_BYTES / 1e6

    def audit(self, method: str) -> Need:
        added = self.distinct(method, self.files.ratios(method))
        references = sum(map(self._reference, self.files.reference_names(method)))
        memory = resources.tables("audit", added + references)
        if self.study.audit.detector:
            memory += self._vectors(added + references)
        return Need(added * references * resources.PER_COMPARED_PAIR / self.cores, memory)

    def review(self, method: str) -> Need:
        return Need()

    def _reference(self, set: str) -> int:
        """Images in a reference set; a folder that the configuration names, or a further test set, is taken to be like
        the target."""
        return self.train if set == "train" else self.size.images.get(set, self.size.target)

    # The report.

    def summary(self, method: str) -> Need:
        rows = self.study.runs * sum(self.added(method, ratio) for ratio in self.files.ratios(method))
        return Need(megabytes=resources.tables("summary", rows))

    def tables(self) -> Need:
        return Need()

    def classifiers(self) -> Need:
        return Need()

    def per_class(self) -> Need:
        return Need()

    def subsamples(self) -> Need:
        return Need()

    def study_page(self) -> Need:
        return Need(megabytes=resources.tables("study_page", self.train))

    # All jobs.

    def largest(self, rule: str) -> float:
        """Megabytes of the largest job of a rule; 0 where the study has none."""
        return self._largest.get(rule, 0)

    @functools.cached_property
    def _largest(self) -> dict[str, float]:
        largest: dict[str, float] = {}
        for rule, need in self.jobs():
            largest[rule] = max(largest.get(rule, 0), need.megabytes)
        return largest

    def jobs(self) -> Iterator[tuple[str, Need]]:
        """The rule and the need of each job of the study's report; of a further draw of a target without those of which
        the first draw has the results."""
        skipped = SHARED if self.files.borrows else frozenset()
        return ((rule, need) for rule, need in self._every_job() if rule not in skipped)

    def _every_job(self) -> Iterator[tuple[str, Need]]:
        for rule in self._once():
            yield rule, getattr(self, rule)()
        yield from self._pool_jobs()
        for name in self.files.backbone_names:
            yield "fetch_named_backbone", self.fetch_named_backbone(name)
        for name in self.files.encoded_backbones:
            yield "encode_latents", self.encode_latents(name)
        for method in self.files.methods:
            yield from self._method_jobs(method)
        for probe in self.files.probes:
            for images in self.files.featured(probe):
                yield "encode_features", self.encode_features(probe, images)
        names = {name for method in self.files.adding for name in self.files.reference_names(method)}
        scored = set(self.files.scored_references)
        for name in self.study.evaluate:
            yield "list_test_set", self.list_test_set(name)
            for method in self.study.methods:
                yield "evaluate", self.evaluate(name, method, self.files.ratios(method)[0])
        for name in names | scored:
            if name in self.study.audit.references:
                yield "list_references", self.list_references(name)
            yield "hash_references", self.hash_references(name)
            if self.study.audit.detector or (name in scored and self.files.embedder):
                yield "embed_references", self.embed_references(name)

    def _once(self) -> Iterator[str]:
        """Rules of which a study has one job."""
        files, study = self.files, self.study
        starts = [method.start for method in files.methods.values()]
        if study.target.reader.is_built_in:
            yield "digits_target"
        if study.pool and study.pool.source.is_built_in and (files.retrieving or files.trains_backbone):
            yield "digits_web"
        yield from ("split_target", "dataset", "tables", "per_class", "study_page")
        if files.shows_classifiers:
            yield "classifiers"
        if study.zero_shot:
            yield "zero_shot"
        if study.safety.named and any(start.is_checked for start in starts):
            yield "fetch_safety_checker"
        if study.backbone and (files.draws_with_own or (files.retrieving and study.safety.is_backbones)):
            if files.trains_backbone:
                yield from ("train_safety_checker", "train_clip")
                yield from ("train_vae", "train_unet") if files.draws_with_own else ()
            else:
                yield "fetch_backbone"
                if study.clip and study.clip.train:
                    yield "train_clip"
        if files.cluster_counts:
            yield "cluster"
        if study.evaluate:
            yield "evaluation"
        if study.subsamples > 1:
            yield "subsamples"
        if files.adding:
            yield from ("judge", "domain_gap")

    def _pool_jobs(self) -> Iterator[tuple[str, Need]]:
        files, pool = self.files, self.study.pool
        if not pool or not (files.retrieving or files.trains_backbone):
            return
        if pool.source.is_packed:
            rule = "download_pool" if pool.source.downloads else "pack_pool"
            for part in range(len(files.pool_shards)):
                yield rule, getattr(self, rule)(str(part))
        if files.retrieving and files.index == [files.pool_index]:
            for part in range(files.embedding_jobs):
                yield "embed_pool", self.embed_pool(str(part))
            yield "index_pool", self.index_pool()
        if files.matches_captions:
            yield "index_captions", self.index_captions()

    def _method_jobs(self, method: str) -> Iterator[tuple[str, Need]]:
        files = self.files
        if method in files.retrieving:
            yield "retrieve", self.retrieve(method)
            if files.further_ratio(method) is not None:
                yield "retrieve_further", self.retrieve_further(method)
        if method in files.generating:
            yield from self._generating_jobs(method)
        if method in files.external:
            yield from [("run_script", self.run_script(method))] * bool(self.study.added[method].script)
            yield "list_added", self.list_added(method)
        if self.study_start(method).adds_images:
            for ratio in files.image_ratios(method):
                rule = "unite" if files.shares(method) else "resample"
                yield rule, getattr(self, rule)(method, ratio)
        yield from (("score", self.score(method, extent)) for extent in files.scored_extents(method))
        if files.is_filtered(method):
            yield from (("filter_images", self.filter_images(method, extent)) for extent in files.extents(method))
        if method not in self.study.methods:
            return  # it is here for its images
        for ratio in files.ratios(method):
            for first, last in files.stretches:
                yield "classify", self.classify(method, ratio, last - first + 1)
        for classifier in self.study.classifiers:
            for first, last in files.stretches:
                need = self.classify(method, files.ratios(method)[0], last - first + 1, classifier)
                yield "classify_further", need
        yield "summary", self.summary(method)
        if method not in files.adding:
            return
        rules = ["hash_added", "audit", "review"] + ["embed_added"] * bool(self.study.audit.detector)
        yield from ((rule, getattr(self, rule)(method)) for rule in rules)

    def _generating_jobs(self, method: str) -> Iterator[tuple[str, Need]]:
        files = self.files
        if files.is_trained(method):
            for rate in self.study.finetune.grid:
                yield "finetune", self.finetune(method, f"{rate:g}")
            for part in range(files.screening_jobs(method)):
                yield "screen", self.screen(method, str(part))
            yield "select", self.select(method)
        purposes = ["screen", "selected"] if files.is_trained(method) else ["base"]
        for purpose in purposes + ["further"] * (files.further_ratio(method) is not None):
            need = self.generate(method, purpose, "0")  # all are alike
            rule = "generate_screened" if purpose == "screen" else "generate"
            yield from ((rule, need) for _ in range(files.generation_jobs))
