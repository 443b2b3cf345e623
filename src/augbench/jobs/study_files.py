"""The files of a study: which there are, by its configuration. Rules, and all who want one, ask this class."""

import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from augbench.audit.duplicates import RADIUS
from augbench.dataset.class_table import class_keys
from augbench.jobs.paths import SPLITS, Paths
from augbench.study import prompts, unions
from augbench.study.config import Config, Study, draw_names, first_draw, parts_of
from augbench.study.methods import GENERATION, Method
from augbench.study.readers.layout import HELD_OUT
from augbench.study.recipes import Recipe
from augbench.study.sections.classifier import MAIN
from augbench.study.sections.diffusion import Generate
from augbench.study.sections.models import Backbone
from augbench.study.sections.retrieval import Pool
from augbench.study.sections.target import Target

_digest_of_templates = functools.cache(prompts.digest)  # read once, not for each of thousands of jobs


class StudyFiles(Paths):
    """The files of one study of a configuration, and the numbers of jobs that make them."""

    def __init__(self, config: Config, name: str):
        super().__init__(name)
        self.config = config
        self.study: Study = config.studies[name]
        self.methods: dict[str, Method] = config.methods_of(self.study)
        first = first_draw(name)
        # A world that is made here has a web of its own for each draw, made for that draw's test images.
        self.borrows = first != name and not self.study.target.reader.is_built_in
        if self.borrows:
            self.shared = Paths(first).folder

    # Methods: those of the study, and those that are here for their images alone, which a union takes.

    @property
    def adding(self) -> list[str]:
        """The study's methods that add images."""
        return [name for name in self.study.methods if self.methods[name].start.adds_images]

    def shares(self, method: str) -> dict[str, Fraction]:
        """The methods whose images a union takes, and the share of each; none for others."""
        return unions.shares_of(method, self.methods)

    def image_ratios(self, method: str) -> list[str]:
        """The ratios at which there are sets of a method's images: its own, and those of unions that take them."""
        mine = self.ratios(method) if method in self.study.methods else []
        takers = [name for name in self.study.methods if method in self.shares(name)]
        return list(dict.fromkeys([*mine, *(ratio for name in takers for ratio in self.ratios(name))]))

    @functools.cached_property
    def makers(self) -> dict[str, str]:
        """Method -> the one whose images it adds: itself or, of one with a filter or a recipe of training, the first
        that is the same but for these, title and family; one without them if there is any. So nothing is made twice."""
        further = {"filter", *Recipe.model_fields}
        rows = {
            name: (method.model_dump(exclude={"title", "family", *further}), self.study.added.get(name))
            for name, method in self.methods.items()
        }
        has_further = {
            name: any(getattr(method, key) is not None for key in further) for name, method in self.methods.items()
        }
        return {
            name: min(
                [other for other in rows if rows[other] == rows[name]] if has_further[name] else [name],
                key=has_further.__getitem__,
            )
            for name in rows
        }

    @property
    def generating(self) -> list[str]:
        """The methods whose added images a diffusion model makes, for them."""
        return [name for name, maker in self.makers.items() if maker == name and self.methods[name].start.is_generated]

    @property
    def finetuned(self) -> list[str]:
        """The methods for which parts of the diffusion model are fine-tuned."""
        return [name for name in self.generating if self.is_trained(name)]

    @property
    def retrieving(self) -> list[str]:
        """The methods whose added images come from the pool, for them."""
        return [name for name, maker in self.makers.items() if maker == name and self.methods[name].start.is_retrieved]

    @property
    def external(self) -> list[str]:
        """The methods whose added images are made elsewhere, for them."""
        return [name for name, maker in self.makers.items() if maker == name and self.methods[name].start.is_external]

    def method_row(self, method: str) -> dict:
        """What of a method's row of the method table its images depend on, beside what :meth:`generation` holds, and a
        digest of its templates."""
        others = {"title", "family", "filter", *GENERATION, *Recipe.model_fields}
        row = self.methods[method].model_dump(exclude=others)
        return row | {"texts": _digest_of_templates(row["conditioning"])}

    def generation(self, method: str) -> Generate:
        """The section ``generate`` as it holds for a method."""
        return self.methods[method].generation(self.study.generate)

    def main_times(self, method: str) -> float:
        return self.study.main_times(self.methods[method])

    def recipe(self, method: str) -> dict:
        """What of a method's row the training of its classifiers depends on."""
        return self.methods[method].recipe.model_dump()

    def is_trained(self, method: str) -> bool:
        return bool(self.methods[method].trained)

    def ratios(self, method: str) -> list[str]:
        """The augmentation ratios of a method, as paths have them, the main one first."""
        wanted = self.study.wanted_ratios(method)
        return [f"{ratio:g}" for ratio in self.methods[method].start.ratios(wanted)]

    def wanted_ratios(self, method: str) -> list[float]:
        """The ratios for which a method has images: its own, and those of unions that take them; the main one
        first."""
        return self.config.wanted_ratios(self.study, method)

    def further_ratio(self, method: str) -> float | None:
        """The ratio for which a method, or another one that adds its images, needs images beyond those of the main
        one; None if none does."""
        enough = self.methods[method].start.enough(self.study, self.methods[method])
        maker = self.makers[method]
        largest = max(max(self.wanted_ratios(name)) for name in self.methods if self.makers[name] == maker)
        return None if enough is None or largest <= enough else largest

    # The target and the data set.

    @property
    def target_section(self) -> Target:
        """The target with the place where it lies: the digits world makes its own."""
        section = self.study.target
        if not section.reader.is_built_in:
            return section
        return section.model_copy(update={"path": self.digits("target"), "classes": self.digits("classes.csv")})

    @property
    def reserve(self) -> list[str]:
        """The splits that classifiers are not trained on, and from which no method takes images."""
        taken = {method.start.split for method in self.methods.values()}
        return [self.split(name) for name in ("unused", "more_real") if name not in taken]

    # The pool.

    @property
    def backbone(self) -> Backbone:
        """The backbone of a study that has one."""
        assert self.study.backbone
        return self.study.backbone

    @property
    def pool(self) -> Pool:
        """The pool of a study that has one."""
        assert self.study.pool
        return self.study.pool

    @functools.cached_property
    def pool_files(self) -> list[str]:
        """What a pool consists of that lies at a path: images, shards or lists of URLs."""
        return self.pool.source.files(self.pool.path) if self.pool.path else []

    @property
    def pool_shards(self) -> list[str]:
        source = self.pool.source
        if source.is_built_in:
            return [self.digits("web.tar")]
        if not source.is_packed:
            return self.pool_files
        parts = parts_of(source.count(self.pool_files, self.pool.columns), self.study.jobs.images_per_shard)
        return [self.pool_shard(part) for part in range(parts)]

    def images_of_pool_shard(self, part: int | str) -> list[str]:
        """The image files that make one shard of a pool that is a folder."""
        size = self.study.jobs.images_per_shard
        return self.pool_files[int(part) * size : (int(part) + 1) * size]

    @property
    def pool_ledgers(self) -> list[str]:
        """What became of each link of a pool that is downloaded as a whole, before it is searched."""
        source = self.pool.source
        whole = source.downloads and source.is_packed
        return [self.pool_shard(part, "parquet") for part in range(len(self.pool_shards))] if whole else []

    @property
    def embedding_jobs(self) -> int:
        return parts_of(len(self.pool_shards), self.study.jobs.shards_per_embedding)

    @property
    def index(self) -> list[str]:
        """The index of the pool; none where a service has it."""
        if self.pool.source.is_ready:
            return [str(self.pool.path)]
        return [] if self.pool.source.is_remote else [self.pool_index]

    def captions_of(self, method: str) -> list[str]:
        """The full-text index of the pool's captions, for a method that matches them."""
        return [self.pool_captions] * self.methods[method].match.reads_captions

    @property
    def matches_captions(self) -> bool:
        """Whether any method matches captions of the pool."""
        return any(self.captions_of(method) for method in self.retrieving)

    @property
    def ledgers(self) -> list[str]:
        return [self.retrieval(method, "ledger.parquet") for method in self.retrieving]

    # Models.

    def backbone_of(self, method: str) -> str:
        """The folder of the diffusion model that generates a method's images."""
        return self.backbone_folder(self.methods[method].backbone)

    def loading_of(self, method: str) -> dict:
        """How that model is loaded."""
        section = self.study.backbone_of(self.methods[method])
        assert section
        return section.loading.model_dump()

    def latents_of(self, method: str, split: str) -> str:
        """The latents of a split by the model's autoencoder."""
        return self.latents(split, self.methods[method].backbone)

    @property
    def backbone_names(self) -> list[str]:
        """The names of the diffusion models, beside the study's own, by which images are generated."""
        return list(dict.fromkeys(name for key in self.generating if (name := self.methods[key].backbone)))

    @property
    def encoded_backbones(self) -> list[str | None]:
        """The diffusion models, by name or None for the study's own, whose latents methods read."""
        rows = [self.methods[key] for key in self.generating]
        return list(dict.fromkeys(row.backbone for row in rows if row.trained or row.start.begins_from_images))

    @property
    def draws_with_own(self) -> bool:
        """Whether the study's own backbone generates images."""
        return any(self.methods[key].backbone is None for key in self.generating)

    @property
    def trains_backbone(self) -> bool:
        """Whether the backbone is trained here, because no pretrained one can be had."""
        return self.study.backbone is not None and self.study.backbone.train is not None

    @property
    def clip(self) -> list[str]:
        """The folder of the CLIP that is trained here, if one is."""
        return [self.model("clip")] if self.study.clip and self.study.clip.train else []

    @property
    def clip_name(self) -> str | None:
        """The name under which clip-retrieval knows the study's CLIP; None without one."""
        if not self.study.clip:
            return None
        return self.study.clip.model or f"hf_clip:{self.model('clip')}"

    @property
    def safety(self) -> str | list:
        """The folder of the safety checker, if images are checked; the backbone's, where it is first to be had:
        retrieval need not wait for the denoiser."""
        if self.study.safety.named:
            return self.model("safety_checker")
        own = self.model("safety" if self.trains_backbone else "backbone")
        return own if self.study.safety.checks else []

    # Fine-tuning and generated images.

    @property
    def cluster_counts(self) -> list[int]:
        """The numbers of clusters that the methods want."""
        return sorted({method.clusters for method in self.methods.values()} - {1})

    def clusters_of(self, method: str) -> str | list:
        """The clusters of the training images, for a method with several conditionings per class; else none."""
        return self.clusters if self.methods[method].clusters > 1 else []

    def finetunings(self, method: str, extension: str = "") -> list[str]:
        """The folders of a method's fine-tunings, or their losses, one per learning rate; none for a method without."""
        rates = self.study.finetune.grid if self.is_trained(method) else []
        return [self.finetuning(method, f"{rate:g}", extension) for rate in rates]

    def screening_jobs(self, method: str) -> int:
        return parts_of(len(self.methods[method].candidates), self.study.jobs.candidates_per_screening)

    def screenings(self, method: str) -> list[str]:
        return [self.screening(method, part) for part in range(self.screening_jobs(method))]

    @functools.cached_property  # the target's folders have to be listed
    def generation_jobs(self) -> int:
        """Jobs for each purpose of a method's generated images, and shards that they write."""
        return parts_of(len(class_keys(self.study.target)), self.study.jobs.classes_per_generation)

    def shards(self, method: str, purpose: str, extension: str) -> list[str]:
        return [self.shard(method, purpose, part, extension) for part in range(self.generation_jobs)]

    def generated(self, method: str, extension: str) -> list[str]:
        """The generated images from which the main ratio's are drawn; of a fine-tuned method the chosen candidate's,
        and the first of each class of the others."""
        return self.shards(method, "selected" if self.is_trained(method) else "base", extension)

    def screened(self, method: str, shard: int | str) -> list[str]:
        """The images of one job by which candidates are compared, shard and image table: they go when a candidate is
        chosen."""
        return [self.shard(method, "screen", shard, extension) for extension in ("tar", "parquet")]

    def further(self, method: str, extension: str) -> list[str]:
        """The images that only further ratios need."""
        if self.further_ratio(method) is None:
            return []
        return self.methods[method].start.further(self, self.makers[method], extension)

    def added_place(self, method: str) -> str:
        """Where the images of a method lie that were made elsewhere, or what a script makes of them."""
        return self.study.added[method].path or self.added(method, "output")

    def order(self, method: str) -> str:
        """How a method's images are chosen for a set: where classes are topped up, none adds more than they lack."""
        order = self.methods[method].start.order
        return "available" if order == "all" and self.study.dataset.fill_to else order

    def allows_fewer(self, method: str, ratio: str) -> bool:
        """Whether a class of a method may have fewer images than a ratio wants: because fewer were made elsewhere, or
        were left over by a filter. Of listed images further ratios leave such a class out."""
        row = self.methods[method]
        if row.start.is_external and self.study.added[method].allow_fewer:
            return True
        if row.start.order == "listed" and float(ratio) > self.study.main_ratio:
            return False
        return self.study.drop_leaks or bool(row.filter and row.filter.allow_fewer)

    def union_parts(self, method: str, ratio: str) -> list[dict]:
        """Of whose images a union's sets are drawn, and how: as :class:`augbench.dataset.unions.Part` takes it."""
        return [
            {"method": part, "share": str(share), "order": self.methods[part].start.order}
            | {"allow_fewer": self.allows_fewer(part, ratio)}
            for part, share in self.shares(method).items()
        ]

    def union_sets(self, method: str, ratio: str) -> list[str]:
        """The sets of those methods at a ratio: the runs of each in turn."""
        return [file for part in self.shares(method) for file in self.added_sets(part, [ratio])]

    def image_tables(self, method: str, ratio: str) -> list[str]:
        """The tables of the images that a method can add at a ratio; up to the main one, only those that it needs."""
        extents = self.extents(method)[: 1 if float(ratio) <= self.study.main_ratio else None]
        if self.is_filtered(method):
            return [self.filtered(method, extent, "images.parquet") for extent in extents]
        return [table for extent in extents for table in self.candidate_tables(method, extent)]

    # Scores and filters.

    def extents(self, method: str) -> list[str]:
        """The groups in which a method's images are scored and filtered, so that those of the main ratio do not depend
        on further ones: ``main`` and, if there are such, ``further``."""
        larger = any(float(ratio) > self.study.main_ratio for ratio in self.image_ratios(method))
        return ["main", "further"] if larger and self.further(method, "parquet") else ["main"]

    def scored_extents(self, method: str) -> list[str]:
        """The groups of a method's images that are scored: further ones only for those who filter them."""
        if method not in self.scored:
            return []
        wanted = {extent for name in self.filtering if self.makers[name] == method for extent in self.extents(name)}
        return ["main", "further"] if "further" in wanted else ["main"]

    def candidate_tables(self, method: str, extent: str) -> list[str]:
        """The tables of the images that a method could add, before any filter."""
        if extent == "further":
            return self.further(method, "parquet")
        return self.methods[method].start.tables(self, self.makers[method])

    def is_filtered(self, method: str) -> bool:
        """Whether some of a method's images are left out; of a union's, those of its methods are."""
        row = self.methods[method]
        can_be = row.start.adds_images and not row.start.is_union
        return can_be and (self.study.drop_leaks or row.filter is not None)

    @property
    def filtering(self) -> list[str]:
        """The methods of whose images some are left out."""
        return [method for method in self.methods if self.is_filtered(method)]

    @property
    def scored(self) -> list[str]:
        """The methods whose images are scored: for themselves, or for those that add them too."""
        wanted = self.filtering
        if self.study.scores:
            wanted = [method for method in self.adding if not self.methods[method].start.is_union]
        return list(dict.fromkeys(self.makers[method] for method in wanted))

    def card_classifier(self, method: str) -> str | list:
        """Metrics that name the pretrained weights of the classifiers that chose among a method's images, as a filter
        or among candidates: those of the judge, a classifier like these. None where no such classifier chose."""
        rows = [self.methods[part] for part in self.shares(method) or [method]]
        chosen = any(row.trained or (row.filter and row.filter.by.needs_classifier) for row in rows)
        return self.judge("metrics.json") if chosen and self.study.classifier.is_pretrained else []

    def selection_of(self, method: str) -> str | list:
        """Which candidate of a fine-tuning makes a method's images; none for a method without."""
        return self.selection(self.makers[method]) if self.is_trained(method) else []

    def embedded(self, splits: Sequence[str]) -> list[str]:
        """The embeddings of the images of some splits; none where nothing embeds them."""
        return [self.detected_references("vectors", split) for split in splits] if self.embedder else []

    @property
    def leaks(self) -> tuple | None:
        """What makes an image a candidate of a duplicate of a held-out one, as in the audit: bits of its hash and, with
        a second detector, cosine distance; None where such images are added all the same."""
        section = self.study.audit
        if not self.study.drop_leaks:
            return None
        return RADIUS, 1 - section.threshold if section.detector else None

    @property
    def embedder(self) -> str | None:
        """By what embeddings images are compared: the audit's second detector, or else the study's CLIP."""
        return self.study.audit.detector or ("clip" if self.study.clip else None)

    def enough_for(self, method: str, extent: str) -> float | None:
        """The ratio for which a method's images of an extent must suffice; None for none, where all that there are are
        added, and of further ones."""
        if extent == "further" or self.methods[method].start.order == "all":
            return None
        return self.study.main_ratio if self.further_ratio(method) else max(map(float, self.image_ratios(method)))

    @property
    def stored_shards(self) -> list[str]:
        """All shards that the study keeps: generated and retrieved images."""
        generated = [self.generated(method, "tar") + self.further(method, "tar") for method in self.generating]
        retrieved = [[self.retrieved(method, "tar"), *self.further(method, "tar")] for method in self.retrieving]
        return [file for files in generated + retrieved for file in files]

    # Augmented sets and classifiers.

    @property
    def runs(self) -> range:
        return range(1, self.study.runs + 1)

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """The (first, last) runs of each job that trains classifiers of one method at one ratio."""
        size = self.study.jobs.runs_per_classifier
        return [(first, min(first + size - 1, self.study.runs)) for first in self.runs[::size]]

    def added_sets(self, method: str, ratios: Sequence[str] | None = None) -> list[str]:
        """The resampled sets of a method that adds images: of these ratios, or of all."""
        ratios = self.ratios(method) if ratios is None else ratios
        return [self.added_set(method, ratio, k) for ratio in ratios for k in self.runs]

    def first_added_set(self, method: str) -> list[str]:
        """What the first classifier run of the main ratio adds; none for a method that adds nothing."""
        return self.added_sets(method, self.ratios(method)[:1])[:1] if method in self.adding else []

    @property
    def main_added_sets(self) -> list[str]:
        """All resampled sets of the main ratio."""
        return [file for method in self.adding for file in self.added_sets(method, self.ratios(method)[:1])]

    def metrics(self, method: str) -> list[str]:
        """Of all classifiers of a method: the runs of each ratio in turn."""
        return [self.run(method, ratio, k, "metrics.json") for ratio in self.ratios(method) for k in self.runs]

    @property
    def predictions(self) -> list[str]:
        """Of all classifiers of the main ratio, on each test image: the runs of each method in turn."""
        return self.main_runs("predictions.parquet")

    def main_runs(self, name: str, classifier: str = MAIN) -> list[str]:
        """A file of all runs of a classifier at the main ratio: the runs of each method in turn."""
        return [
            self.run(method, self.ratios(method)[0], k, name, classifier)
            for method in self.study.methods
            for k in self.runs
        ]

    def weights(self, method: str, ratio: str) -> list[str]:
        """Of the classifiers of a method at a ratio."""
        return [self.run(method, ratio, k, "best.safetensors") for k in self.runs]

    @property
    def evaluations(self) -> list[str]:
        """Predictions of all classifiers of the main ratio on further test sets: set by set, the runs of each method in
        turn."""
        return [
            self.evaluation(name, method, self.ratios(method)[0], k)
            for name in self.study.evaluate
            for method in self.study.methods
            for k in self.runs
        ]

    def crossed_runs(self, name: str) -> list[str]:
        """:meth:`main_runs` of each classifier in turn, the study's own first."""
        return [file for classifier in self.study.all_classifiers for file in self.main_runs(name, classifier)]

    @property
    def without(self) -> str | None:
        """The method that trains on the target alone, if the study has it."""
        return next((method for method in self.study.methods if self.methods[method].is_target_alone), None)

    @property
    def shows_classifiers(self) -> bool:
        """Whether there are several, or pretrained weights to name."""
        return bool(self.study.classifiers) or self.study.classifier.is_pretrained

    # Features, for probes.

    @property
    def probes(self) -> list[str]:
        """The classifiers that are fitted on features."""
        return [name for name, section in self.study.all_classifiers.items() if section.train.is_probe]

    def featured(self, classifier: str) -> list[str]:
        """Of which images a probe takes features: the splits, and the sets of each method and ratio."""
        if classifier not in self.probes:
            return []
        ratios = {method: self.ratios(method)[: None if classifier == MAIN else 1] for method in self.adding}
        return [SPLITS, *(self.sets(method, ratio) for method, each in ratios.items() for ratio in each)]

    def featured_tables(self, images: str) -> list[str]:
        """The image tables that an entry of :meth:`featured` stands for."""
        if images == SPLITS:
            return [self.split(split) for split in ("train", *HELD_OUT)]
        method, ratio = images.split("/x")
        return self.added_sets(method, [ratio])

    def features_for(self, classifier: str, method: str, ratio: str) -> list[str]:
        """The features from which a method's classifiers are fitted; none for a classifier that is no probe."""
        if classifier not in self.probes:
            return []
        names = [SPLITS, *([self.sets(method, ratio)] if method in self.adding else [])]
        return [self.features(classifier, name) for name in names]

    def tables_of_features(self, classifier: str, method: str, ratio: str) -> list[list[str]]:
        """The image tables of each of :meth:`features_for`."""
        names = [SPLITS, self.sets(method, ratio)][: len(self.features_for(classifier, method, ratio))]
        return [self.featured_tables(name) for name in names]

    # The audit and the report.

    def reference_names(self, method: str) -> list[str]:
        """The sets that a method's added images are compared with: splits but its own, folders of the configuration,
        and further test sets."""
        return [*self.study.audit.references_of(self.methods[method].start), *self.study.evaluate]

    def reference_table(self, name: str) -> str:
        """The image table of a reference set: of a split, a folder that the configuration names, or a test set."""
        if name in self.study.evaluate:
            return self.evaluation_images(name)
        return self.listed_references(name) if name in self.study.audit.references else self.split(name)

    def reference_tables(self, method: str) -> list[str]:
        return [self.reference_table(name) for name in self.reference_names(method)]

    def reference_hashes(self, method: str) -> list[str]:
        return [self.detected_references("hashes", name) for name in self.reference_names(method)]

    def reference_vectors(self, method: str) -> list[str]:
        """What the second detector sees in each reference set; none without one."""
        names = self.reference_names(method) if self.study.audit.detector else []
        return [self.detected_references("vectors", name) for name in names]

    @property
    def scored_references(self) -> list[str]:
        """The splits with which scored images are compared."""
        return ["train", *HELD_OUT] if self.scored else []

    @property
    def summaries(self) -> list[str]:
        return [self.summary(method) for method in self.study.methods]

    @property
    def draw_summaries(self) -> list[str]:
        """The summaries of all draws of the target: those of each method in turn."""
        draws = [Paths(name) for name in draw_names(self.name, self.study)]
        return [draw.summary(method) for method in self.study.methods for draw in draws]

    def audits(self, name: str) -> list[str]:
        """A file of the audit of each method that adds images, e.g. ``review.html``."""
        return [self.audit(method, name) for method in self.adding]

    @property
    def verdict_files(self) -> list[str]:
        """People's verdicts, as far as there are any."""
        return [file for method in self.adding if Path(file := self.verdicts(method)).is_file()]

    @property
    def method_rows(self) -> dict[str, dict]:
        """The rows of the method table of the study's methods, and of those whose images its unions take."""
        return {name: method.model_dump() for name, method in self.methods.items()}
