"""The paths of a study: each is spelt here, once."""

from augbench.study.sections.classifier import MAIN

RESULTS = "results"
SPLITS = "splits"


class Paths:
    """The paths of a study called ``study``, which may be a wildcard: ``Paths("{study}").split("train")``."""

    def __init__(self, study: str):
        self.name = study
        self.folder = f"{RESULTS}/{study}"
        self.shared = self.folder  # of models and the pool, which all draws of a target use

    # The target, and the data set of the classes that take part.

    def target(self, name: str) -> str:
        """``classes.csv`` or ``images.parquet``, before retrieval says which classes stay."""
        return f"{self.folder}/target/{name}"

    @property
    def classes(self) -> str:
        return f"{self.folder}/dataset/classes.csv"

    def split(self, split: str) -> str:
        return f"{self.folder}/dataset/{split}.parquet"

    def added_set(self, method: str, ratio: str, k: int | str) -> str:
        """The image table of a resampled set of a method's images."""
        return f"{self.folder}/augmentation/{method}/x{ratio}/split-{k}.parquet"

    def export(self, method: str, form: str) -> str:
        return f"{self.folder}/export/{method}/{form}"

    # The digits world, models, and the pool.

    def digits(self, name: str) -> str:
        return f"{self.folder}/digits/{name}"

    def model(self, name: str) -> str:
        """The folder of a model: ``backbone``, ``clip``, ``vae``, ``safety`` (trained with the backbone) or
        ``safety_checker`` (named)."""
        return f"{self.shared}/{name}"

    def pool_shard(self, part: int | str, extension: str = "tar") -> str:
        return f"{self.shared}/pool/shards/{part}.{extension}"

    def pool_embeddings(self, part: int | str) -> str:
        return f"{self.shared}/pool/embeddings/{part}"

    @property
    def pool_index(self) -> str:
        return f"{self.shared}/pool/index"

    @property
    def pool_captions(self) -> str:
        """The full-text index of the pool's captions."""
        return f"{self.shared}/pool/captions.sqlite"

    # What methods make.

    def retrieval(self, method: str, name: str, further: bool = False) -> str:
        """``ledger.parquet``, ``funnel.csv``, ``hosts.csv`` and images, of the main ratio or the ``further`` ones."""
        return f"{self.folder}/retrieval/{method}/{'further/' * further}{name}"

    def retrieved(self, method: str, extension: str, further: bool = False) -> str:
        """The images that a method retrieves, as a shard (tar) or an image table (parquet)."""
        return self.retrieval(method, f"images.{extension}", further)

    def added(self, method: str, name: str) -> str:
        """Of images that were made elsewhere: ``images.parquet``, or the folder ``output`` that a script fills."""
        return f"{self.folder}/added/{method}/{name}"

    def added_images(self, method: str) -> str:
        return self.added(method, "images.parquet")

    def scores(self, method: str, extent: str) -> str:
        """The scores of the images that a method may add: ``main``, up to the main ratio, or ``further``."""
        return f"{self.folder}/scores/{method}/{extent}/scores.parquet"

    def filtered(self, method: str, extent: str, name: str) -> str:
        """What is left of these images: ``images.parquet``, ``ledger.csv`` or ``counts.csv``."""
        return f"{self.folder}/filtered/{method}/{extent}/{name}"

    def backbone_folder(self, name: str | None = None) -> str:
        """The folder of a diffusion model that the configuration gives a name, or of the study's own."""
        return f"{self.shared}/backbones/{name}" if name else self.model("backbone")

    def latents(self, split: str, backbone: str | None = None) -> str:
        """The latents of a split by the autoencoder of a backbone that has a name, or of the study's own."""
        return f"{self.folder}/latents/{f'{backbone}/' if backbone else ''}{split}.safetensors"

    @property
    def clusters(self) -> str:
        return f"{self.folder}/finetune/clusters.parquet"

    def finetuning(self, method: str, rate: str, extension: str = "") -> str:
        """The folder of a fine-tuning's candidates; with the extension ``.csv`` its losses, which stay."""
        return f"{self.folder}/finetune/{method}/lr-{rate}{extension}"

    def chosen(self, method: str) -> str:
        """The chosen candidate."""
        return f"{self.folder}/finetune/{method}/chosen.safetensors"

    def shard(self, method: str, purpose: str, shard: int | str, extension: str) -> str:
        """Generated images, as a shard (tar) or an image table (parquet).

        ``purpose`` is ``base``, all that the main ratio needs of a method without fine-tuning; ``screen``, by which the
        candidates of a fine-tuning are compared; ``selected``, the chosen candidate's, with those by which it was
        compared; or ``further``, what only ratios above the main one need.
        """
        return f"{self.folder}/images/{method}/{purpose}/shard-{shard}.{extension}"

    def screening(self, method: str, part: int | str) -> str:
        return f"{self.folder}/selection/{method}/part-{part}.json"

    def selection(self, method: str) -> str:
        return f"{self.folder}/selection/{method}.json"

    def run(self, method: str, ratio: str, k: int | str, name: str, classifier: str = MAIN) -> str:
        """A file of a classifier, the study's own or a further one: ``metrics.json``, ``predictions.parquet``,
        ``history.csv``, ``best.safetensors``."""
        place = "classifier" if classifier == MAIN else f"classifiers/{classifier}"
        return f"{self.folder}/{place}/{method}/x{ratio}/run-{k}/{name}"

    def features(self, classifier: str, images: str) -> str:
        """The features of images in the eyes of a classifier's network: of all ``splits``, or of a method's sets, see
        :meth:`sets`."""
        return f"{self.folder}/features/{classifier}/{images}.parquet"

    def sets(self, method: str, ratio: str) -> str:
        """What all sets of a method's images at a ratio are called."""
        return f"{method}/x{ratio}"

    def zero_shot(self, name: str) -> str:
        """A file of CLIP's zero-shot classification: ``metrics.json`` or ``predictions.parquet``."""
        return f"{self.folder}/zero_shot/{name}"

    def evaluation_images(self, name: str) -> str:
        """The image table of a further test set."""
        return f"{self.folder}/evaluation/{name}/images.parquet"

    def evaluation(self, name: str, method: str, ratio: str, k: int | str) -> str:
        """A classifier's predictions on a further test set."""
        return f"{self.folder}/evaluation/{name}/{method}/x{ratio}/run-{k}.parquet"

    # The audit, and what the report is made of.

    def listed_references(self, name: str) -> str:
        """The image table of a folder that the configuration names."""
        return f"{self.folder}/audit/references/{name}.parquet"

    def detected_references(self, kind: str, name: str) -> str:
        """What a detector says of a reference set: ``hashes`` or ``vectors``."""
        return f"{self.folder}/audit/{kind}/{name}.parquet"

    def audit(self, method: str, name: str) -> str:
        """``hashes.parquet``, ``vectors.parquet``, ``candidates.parquet``, ``summary.json`` or ``review.html``."""
        return f"{self.folder}/audit/{method}/{name}"

    def judge(self, name: str) -> str:
        return f"{self.folder}/domain_gap/judge/{name}"

    def summary(self, method: str) -> str:
        return f"{self.folder}/summary/{method}.json"

    def table(self, name: str) -> str:
        return f"{self.folder}/tables/{name}.csv"

    @property
    def figures(self) -> str:
        return f"{self.folder}/figures"

    @property
    def report(self) -> str:
        return f"{self.folder}/report.html"

    @property
    def answer(self) -> str:
        """What to do with the data, as text."""
        return f"{self.folder}/answer.md"

    @property
    def report_section(self) -> str:
        """What the joined page shows of the study."""
        return f"{self.folder}/page.json"

    def verdicts(self, method: str) -> str:
        """People's verdicts on duplicate candidates, in the working directory."""
        return f"resources/verdicts/{self.name}/{method}.csv"

    def together(self, first: int, last: int) -> str:
        """An empty file named after the runs that one job makes, an input of that job.

        Snakemake compares a job's parameters with those before only if each of its outputs has such: of runs 1 to 5, if
        1 and 2 alone were made before, it would take these as they are. A file that is newer than they are says that
        they are not.
        """
        return f"{self.folder}/.runs/{first}-{last}"
