# All Python that the rules share: the checked configuration, and what files a study consists of.
import functools
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from augbench.classifier import crops
from augbench.core import code_digest
from augbench.dataset import export, splits
from augbench.dataset.class_table import class_keys
from augbench.jobs import checks, logs
from augbench.jobs import resources as costs
from augbench.report import catalogue
from augbench.report.tables import paper_dataset
from augbench.retrieval import pools as poolside
from augbench.study import classes, prompts
from augbench.study import config as configuration
from augbench.study.sections.audit import REFERENCES

logs.share_library()

try:
    CONFIG = configuration.parse(config)
    # Each job of a run reads this file again; it need not look at the whole target again.
    crowded, remarks = [], []
    if workflow.is_main_process:
        crowded = checks.check_world(CONFIG)
        remarks = checks.remarks(CONFIG)
except (configuration.ConfigError, ValueError) as error:
    raise WorkflowError(str(error))
for sentence in [*crowded, *remarks]:
    print(sentence, file=sys.stderr)

METHODS = CONFIG.methods
STUDIES = CONFIG.studies


wildcard_constraints:
    study="|".join(STUDIES),
    method="|".join(METHODS),
    candidate="base|screen|selected|further",
    rate=r"[0-9.e+-]+",
    part="[0-9]+",
    ratio=r"[0-9.]+",
    shard="[0-9]+",
    set="|".join(
        {*REFERENCES}.union(*(study.audit.references for study in STUDIES.values()))
    ),


digest_of = functools.cache(code_digest.digest)


def track_code():
    """Make a digest of its script, and of all that this imports, a parameter of each rule: their edits, and no others,
    run a job again."""
    for each in workflow.rules:
        if each.script:
            script = Path(
                each.basedir.get_path_or_uri(secret_free=True), each.script
            ).resolve()
            each.set_params(code=lambda wildcards, script=script: digest_of(script))


def study_of(wildcards):
    return STUDIES[wildcards.study]


def setting(section):
    """A params function: a section of the study, e.g. setting("generate"), or one value of it."""

    def value(wildcards):
        found = study_of(wildcards)
        for key in section.split("."):
            found = getattr(found, key)
        return found.model_dump() if hasattr(found, "model_dump") else found

    return value


def target_of(study):
    """Where a study's target lies: the digits world makes its own."""
    given = STUDIES[study].target
    if not given.reader.is_built_in:
        return given
    folder = f"results/{study}/digits"
    return given.model_copy(
        update={"path": f"{folder}/target", "classes": f"{folder}/classes.csv"}
    )


def retrieving(study):
    """The study's methods whose added images are found in the pool."""
    return [
        method
        for method in STUDIES[study].methods
        if METHODS[method].start.is_retrieved
    ]


def adding(study):
    """The study's methods that add images."""
    return [
        method for method in STUDIES[study].methods if METHODS[method].start.adds_images
    ]


def added_splits(study):
    """Splits of the target whose images a method of the study adds."""
    return {METHODS[method].start.split for method in STUDIES[study].methods}


def generating(study):
    """The study's methods whose added images a diffusion model makes."""
    return [
        method
        for method in STUDIES[study].methods
        if METHODS[method].start.is_generated
    ]


def trained(method):
    return bool(METHODS[method].trained)


def clustered(study):
    """The numbers of clusters that the study's methods want."""
    wanted = {METHODS[method].clusters for method in STUDIES[study].methods}
    return sorted(wanted - {1})


@functools.cache  # asked for by each of what may be thousands of jobs, and the target's folders have to be listed
def generation_jobs(study):
    return configuration.parts_of(
        len(class_keys(STUDIES[study].target)),
        STUDIES[study].jobs.classes_per_generation,
    )


def screening_jobs(study, method):
    return configuration.parts_of(
        len(METHODS[method].candidates), STUDIES[study].jobs.candidates_per_screening
    )


def shards(study, method, candidate, extension):
    """The files of a method's generated images; candidate is base, screen, selected or further."""
    return [
        f"results/{study}/images/{method}/{candidate}/shard-{i}.{extension}"
        for i in range(generation_jobs(study))
    ]


def generated(study, method, extension):
    """The files of a method's generated images from which the main ratio's are drawn; of a fine-tuned method, also those
    made to compare candidates."""
    made = ["screen", "selected"] if trained(method) else ["base"]
    return [
        file
        for candidate in made
        for file in shards(study, method, candidate, extension)
    ]


def further_ratio(study, method):
    """The ratio for which a method needs images beyond those of the main one; None if it needs none."""
    enough = METHODS[method].start.enough(STUDIES[study])
    largest = max(STUDIES[study].wanted_ratios(method))
    return None if enough is None or largest <= enough else largest


def further(study, method, extension):
    """The files of the images that only further ratios need."""
    if further_ratio(study, method) is None:
        return []
    return METHODS[method].start.further(Files(study), method, extension)


class Files:
    """A study's files, as its methods' starts ask for them."""

    def __init__(self, study):
        self.study = study

    def split(self, name):
        return f"results/{self.study}/dataset/{name}.parquet"

    def generated(self, method, extension):
        return generated(self.study, method, extension)

    def shards(self, method, candidate, extension):
        return shards(self.study, method, candidate, extension)

    def retrieved(self, method, extension, further=False):
        folder = f"results/{self.study}/retrieval/{method}"
        return f"{folder}{'/further' * further}/images.{extension}"


def image_tables(study, method, ratio):
    """The tables of the images that a method can add at a ratio; up to the main one, only those that it needs."""
    tables = METHODS[method].start.tables(Files(study), method)
    if float(ratio) <= STUDIES[study].main_ratio:
        return tables
    return tables + further(study, method, "parquet")


def stored_images(study):
    """All shards that a study keeps: generated and retrieved images."""
    made = [
        file
        for method in generating(study)
        for file in generated(study, method, "tar") + further(study, method, "tar")
    ]
    return made + [
        file
        for method in retrieving(study)
        for file in [
            f"results/{study}/retrieval/{method}/images.tar",
            *further(study, method, "tar"),
        ]
    ]


def finetuned(wildcards):
    """The folders of a method's fine-tunings, one per learning rate; none for a method without."""
    if not trained(wildcards.method):
        return []
    return [
        f"results/{wildcards.study}/finetune/{wildcards.method}/lr-{rate:g}"
        for rate in study_of(wildcards).finetune.grid
    ]


def clusters_of(wildcards):
    wanted = METHODS[wildcards.method].clusters > 1
    return f"results/{wildcards.study}/finetune/clusters.parquet" if wanted else []


def row_of(wildcards):
    """The method's row of the method table, and a digest of its templates: an edit of theirs runs it again."""
    row = METHODS[wildcards.method].model_dump(exclude={"title", "family"})
    return row | {"texts": _texts(row["conditioning"])}


_texts = functools.cache(prompts.digest)  # read once, not for each job


def references(study, method):
    """The sets that a method's added images are compared with: splits but its own, and folders of the configuration."""
    return STUDIES[study].audit.references_of(METHODS[method].start)


def reference_table(study, name):
    """The image table of a reference set: of a split, or of a folder that the configuration names."""
    folder = (
        "audit/references" if name in STUDIES[study].audit.references else "dataset"
    )
    return f"results/{study}/{folder}/{name}.parquet"


def added_tables(wildcards):
    """The resampled sets of a method: what its classifiers were trained on."""
    return expand(
        "results/{study}/augmentation/{method}/x{ratio}/split-{k}.parquet",
        ratio=ratios(wildcards.study, wildcards.method),
        k=range(1, study_of(wildcards).runs + 1),
        study=wildcards.study,
        method=wildcards.method,
    )


def main_predictions(wildcards):
    """What the classifiers said about each test image, at the main ratio: the runs of each method in turn."""
    study = wildcards.study
    return [
        f"results/{study}/classifier/{method}/x{ratios(study, method)[0]}/run-{k}/predictions.parquet"
        for method in STUDIES[study].methods
        for k in range(1, STUDIES[study].runs + 1)
    ]


def seen_sets(kind):
    """An input function: what a detector made of each reference set, e.g. hashes; no vectors without a detector."""

    def files(wildcards):
        study = wildcards.study
        if kind == "vectors" and not STUDIES[study].audit.detector:
            return []
        return [
            f"results/{study}/audit/{kind}/{name}.parquet"
            for name in references(study, wildcards.method)
        ]

    return files


def verdicts(study):
    """People's verdicts on duplicate candidates, where there are any."""
    files = [f"resources/verdicts/{study}/{method}.csv" for method in adding(study)]
    return [file for file in files if Path(file).is_file()]


def figures(study):
    """The figures of a study, without extension."""
    methods = {
        method: METHODS[method].model_dump() for method in STUDIES[study].methods
    }
    return catalogue.names(
        methods, {method: ratios(study, method) for method in methods}
    )


def shown(studies):
    """What a page shows of these studies, beside their results: settings, rows of the method table, image tables."""
    return {
        name: {
            "settings": STUDIES[name].model_dump(exclude={"jobs"}),
            "methods": {
                method: METHODS[method].model_dump() for method in STUDIES[name].methods
            },
            "generated": {
                method: generated(name, method, "parquet")
                for method in generating(name)
            },
        }
        for name in studies
    }


def ratios(study, method):
    """The augmentation ratios of a method, the main one first."""
    wanted = STUDIES[study].wanted_ratios(method)
    return [f"{ratio:g}" for ratio in METHODS[method].start.ratios(wanted)]


@functools.cache
def pool_files(study):
    """What a pool consists of that lies at a path: images, shards or lists of URLs."""
    pool = STUDIES[study].pool
    return pool.source.files(pool.path)


def pool_shards(study):
    source = STUDIES[study].pool.source
    if source.is_built_in:
        return [f"results/{study}/digits/web.tar"]
    if not source.is_packed:
        return pool_files(study)
    size = STUDIES[study].jobs.images_per_shard
    return [
        f"results/{study}/pool/shards/{part}.tar"
        for part in range(configuration.parts_of(pool_size(study), size))
    ]


@functools.cache
def pool_size(study):
    """Images, or rows of lists of URLs, of which shards are made."""
    return STUDIES[study].pool.source.count(pool_files(study))


def shard_images(wildcards):
    """Path, size and time of the images that make one shard of a pool that is a folder."""
    size, part = study_of(wildcards).jobs.images_per_shard, int(wildcards.part)
    files = pool_files(wildcards.study)[part * size : (part + 1) * size]
    return poolside.states(files)


def ledgers(study):
    """The ledger of each retrieval method of the study."""
    return [
        f"results/{study}/retrieval/{method}/ledger.parquet"
        for method in retrieving(study)
    ]


def index_folder(study):
    """The index as an input; a service has its own."""
    pool = STUDIES[study].pool
    if pool.source.brings_index:
        return [pool.path]
    return [] if pool.source.is_remote else [f"results/{study}/pool/index"]


def embedding_jobs(study):
    return configuration.parts_of(
        len(pool_shards(study)), STUDIES[study].jobs.shards_per_embedding
    )


def clip_model(study):
    """The name under which clip-retrieval finds the study's CLIP."""
    return STUDIES[study].clip.model or f"hf_clip:results/{study}/clip"


def clip_folder(study):
    """The trained CLIP as an input, where there is one."""
    return [f"results/{study}/clip"] if STUDIES[study].clip.train else []


def one_of(studies):
    """A wildcard constraint for these studies alone; it matches nothing when there are none."""
    return "|".join(studies) or "(?!)"


def packed_pools(downloads):
    """A wildcard constraint for the studies of whose pools shards are made here, from images that are downloaded or
    not."""
    return one_of(
        name
        for name, study in STUDIES.items()
        if study.pool
        and study.pool.source.is_packed
        and study.pool.source.downloads == downloads
    )


# Studies whose backbone is trained here, because no pretrained one can be had.
TRAINED_BACKBONE = [
    name for name, study in STUDIES.items() if study.backbone and study.backbone.train
]


def safety_folder(study):
    """Where the backbone's safety checker is first to be had: retrieval need not wait for the denoiser."""
    return (
        f"results/{study}/safety"
        if study in TRAINED_BACKBONE
        else f"results/{study}/backbone"
    )


def stretches(study):
    """The (first, last) runs of each of a study's classifier jobs."""
    size = study.jobs.runs_per_classifier
    return [
        (first, min(first + size - 1, study.runs))
        for first in range(1, study.runs + 1, size)
    ]


def name_parameters():
    """Let Snakemake compare parameters by name: it compares the set of their values alone, to which a seed of 1 in 2
    parts is a seed of 2 in 1 part."""

    def named(items):
        def numbers(wildcards):
            values = {
                name: value(wildcards) if callable(value) else value
                for name, value in items
            }
            return {
                name: value
                for name, value in values.items()
                if not isinstance(value, (list, dict))
            }

        return numbers

    for each in workflow.rules:
        if len(each.params) > 2:  # of which one is the code
            each.set_params(named=named(list(each.params.items())))


def together(study, first, last):
    """A file named after the runs that one job makes, as an input of that job.

    Snakemake compares a job's parameters with those before only if each of its outputs has such: of runs 1 to 5, if 1
    and 2 alone were made before, it would take these as they are. A file that is newer than they are says that they
    are not.
    """
    file = Path(f"results/{study}/.runs/{first}-{last}")
    if workflow.is_main_process and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return str(file)


def refuse_crowded_disk():
    """When work starts: what another machine will do may be planned where there is no room for it."""
    if crowded:
        raise WorkflowError("\n".join(crowded))


WATCHES = []


def watch(dag):
    """Follow the run on each study's status page; a run goes on without, should that fail."""
    from augbench.jobs import status
    from snakemake.logging import logger

    def about(job):
        return status.Job(
            stage=re.sub(r"_[0-9]+$", "", job.rule.name),
            study=job.wildcards_dict.get("study", ""),
            method=job.wildcards_dict.get("method", ""),
            logs=tuple(map(str, job.log)),
            benchmark=str(job.benchmark or ""),
            needed=dag.needrun(job),
        )

    try:
        found = {
            job.jobid: about(job)
            for level in dag.toposorted()
            for job in sorted(level, key=lambda job: job.rule.name)
            if job.rule.name != "all"
        }
        WATCHES.append(status.Watch(found, STUDIES))
        WATCHES[-1].start(logger)
    except Exception as error:
        print(f"status.html will not be kept: {error!r}", file=sys.stderr)


def stop_watching(end):
    while WATCHES:
        WATCHES.pop().stop(end)


def print_stage_times():
    from augbench.report.page import stage_times

    for study in STUDIES:
        times = stage_times(f"results/{study}")
        if len(times):
            print(
                f"\nTime per stage, study {study}:\n{times.to_string(index=False)}",
                file=sys.stderr,
            )


# --- what jobs cost: resources are functions of (wildcards, input, attempt); <TBD> while an input is missing ---


def rows(*tables):
    """Rows of Parquet files, without reading them."""
    from pyarrow.parquet import ParquetFile

    for table in tables:
        Path(
            table
        ).stat()  # its error, unlike pyarrow's, tells Snakemake that the file is yet to come
    return sum(ParquetFile(table).metadata.num_rows for table in tables)


def cores(study):
    """Cores for work that takes as many as there are: one where it is done before another job could have begun."""
    return 2 if generation_jobs(study) > 1 else 1


def cpus(training):
    """Cores of a training: of each of its processes, and of what reads images for it."""
    return training.processes * (training.threads + getattr(training, "workers", 0))


def images_to_generate(wildcards, classes_csv):
    """Images of one method, or of the comparison of its candidates, over all jobs."""
    counts = _images_to_generate(
        wildcards.study,
        wildcards.method,
        classes_csv,
        Path(classes_csv).stat().st_mtime,
    )
    return counts[wildcards.candidate]


@functools.cache
def _images_to_generate(study, method, classes_csv, changed):
    given, kept = STUDIES[study], classes.kept(classes_csv)
    fixed, more = given.generate.images_per_class, further_ratio(study, method) or 0
    first = sum(classes.added(about["train"], given.main_ratio) for about in kept)
    main, every = (
        sum(classes.generated(about["train"], times, fixed) for about in kept)
        for times in (given.main_times, max(given.main_times, more))
    )
    compared = len(METHODS[method].candidates) * first
    return {"base": main, "screen": compared, "selected": main, "further": every - main}


def sampling_seconds(study, images):
    given = STUDIES[study].generate
    return costs.sampling(images, given.steps, given.image_size)


def classifier_seconds(study, images, runs):
    """One classifier after the other, each on all GPUs of the job."""
    given = STUDIES[study].classifier
    work = costs.classifier(images, given.max_epochs, given.image_size)
    return runs * work / given.processes


def classifier_bytes(study, images):
    """Images that stay decoded in the memory of each process."""
    given = STUDIES[study].classifier
    pixels = given.image_size**2 / given.crop_scale[0]
    return given.processes * min(4 * pixels * images, crops.MEMORY)


def finetuning_seconds(wildcards, images):
    given = study_of(wildcards)
    work = costs.finetuning(
        images,
        given.finetune.max_epochs,
        given.generate.image_size,
        METHODS[wildcards.method].trained,
    )
    return work / given.finetune.processes


def screening_seconds(wildcards, images):
    """Of one job: one classifier for each of its candidates."""
    study, method = wildcards.study, wildcards.method
    candidates = len(METHODS[method].candidates) / screening_jobs(study, method)
    both = (1 + study_of(wildcards).main_ratio) * images
    return candidates * classifier_seconds(study, both, 1)


def training_of(wildcards, section, prefix):
    """Images that the training of a small model sees, and their side."""
    given = getattr(study_of(wildcards), section).train.model_dump()
    batch = given.get(f"{prefix}batch_size", given["batch_size"])
    return given[f"{prefix}steps"] * batch, given["image_size"]


def embedded_images(study):
    """Of one job."""
    given = STUDIES[study].jobs
    return given.images_per_shard * given.shards_per_embedding


def size_of(text):
    """Bytes of a size such as 4G."""
    return float(text[:-1]) * {"M": 1e6, "G": 1e9}[text[-1]]
