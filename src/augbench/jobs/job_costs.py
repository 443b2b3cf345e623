"""What a study's jobs cost: the work of each kind of job, from its settings and inputs, in the units of
:mod:`augbench.jobs.resources`."""

import functools
from pathlib import Path

from augbench.classifier import crops
from augbench.jobs import resources
from augbench.jobs.study_files import StudyFiles
from augbench.study import classes


def rows(*tables: str) -> int:
    """Rows of Parquet files, without reading them. Raises FileNotFoundError where one is yet to come: unlike pyarrow's
    error, Snakemake knows it, and shows <TBD>."""
    from pyarrow.parquet import ParquetFile

    for table in tables:
        Path(table).stat()
    return sum(ParquetFile(table).metadata.num_rows for table in tables)


SMALL = 64  # pixels a side, up to which the images of a classifier are taken to fit into memory: none reads them ahead


class JobCosts:
    """Seconds, bytes and cores of the jobs of one study."""

    def __init__(self, files: StudyFiles):
        self.files, self.study = files, files.study
        self._images_by_purpose = functools.cache(self._count_images)  # asked for by each of thousands of jobs

    @property
    def cores(self) -> int:
        """For work that takes as many as there are: one where it is done before another job could have begun."""
        return 2 if self.files.generation_jobs > 1 else 1

    @property
    def classifier_cores(self) -> int:
        """Of each process of a training, and of what reads images for it."""
        section = self.study.classifier
        workers = section.workers
        if workers is None:
            workers = crops.READERS if section.image_size > SMALL else 0
        return section.processes * (section.threads + workers)

    @property
    def finetuning_cores(self) -> int:
        return self.study.finetune.processes * self.study.finetune.threads

    def images_to_generate(self, method: str, purpose: str, classes_csv: str) -> float:
        """Images of one job."""
        counts = self._images_by_purpose(method, classes_csv, Path(classes_csv).stat().st_mtime)
        return counts[purpose] / self.files.generation_jobs

    def _count_images(self, method: str, classes_csv: str, changed: float) -> dict[str, int]:
        study, kept = self.study, classes.kept(classes_csv)
        fixed, further = self.files.generation(method).images_per_class, self.files.further_ratio(method) or 0
        times = self.files.main_times(method)
        first = sum(classes.added(row["train"], study.main_ratio) for row in kept)
        main, every = (
            sum(classes.generated(row["train"], each, fixed) for row in kept) for each in (times, max(times, further))
        )
        compared = len(self.files.methods[method].candidates) * first
        return {"base": main, "screen": compared, "selected": main, "further": every - main}

    def sampling_seconds(self, method: str, images: float) -> float:
        section = self.files.generation(method)
        return resources.sampling(images, section.steps, section.image_size)

    def classifier_seconds(self, images: float, runs: float = 1) -> float:
        """One classifier after the other, each on all GPUs of the job."""
        section = self.study.classifier
        return runs * resources.classifier(images, section.max_epochs, section.image_size) / section.processes

    def classifier_bytes(self, images: float) -> float:
        """Images that stay decoded in the memory of each process."""
        section = self.study.classifier
        pixels = section.image_size**2 / section.crop_scale[0]
        return section.processes * min(4 * pixels * images, crops.MEMORY)

    def screening_seconds(self, method: str, images: float) -> float:
        """Of one job: a classifier for each of its candidates, trained on ``images`` and those added to them."""
        candidates = len(self.files.methods[method].candidates) / self.files.screening_jobs(method)
        return self.classifier_seconds((1 + self.study.main_ratio) * images, candidates)

    def finetuning_seconds(self, method: str, images: float) -> float:
        section, trained = self.study.finetune, self.files.methods[method].trained
        work = resources.finetuning(images, section.max_epochs, self.study.generate.image_size, trained)
        return work / section.processes

    def latents_bytes(self, images: float) -> float:
        return resources.latents(images, self.study.generate.image_size)

    def training_seconds(self, section: str, prefix: str = "") -> float:
        """Of a small model: ``clip``, or ``backbone`` with the prefix of the settings, ``vae_`` or ``unet_``."""
        settings = getattr(self.study, section).train.model_dump()
        batch_size = settings.get(f"{prefix}batch_size", settings["batch_size"])
        return resources.training(settings[f"{prefix}steps"] * batch_size, settings["image_size"])

    @property
    def embedding_seconds(self) -> float:
        """Of one job that embeds shards of the pool."""
        return resources.hashing(self.study.jobs.images_per_shard * self.study.jobs.shards_per_embedding)

    @property
    def index_bytes(self) -> float:
        """Building an index takes more memory than searching it: 4G, say, in words of the configuration."""
        size = self.files.pool.memory
        return 2 * float(size[:-1]) * {"M": 1e6, "G": 1e9}[size[-1]]
