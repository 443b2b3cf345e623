# What the rules share: the checked configuration, the files of its studies, and the helpers of parameters and resources.
import sys

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import update_config

from augbench.core import benchmarks
from augbench.jobs import checks, logs, status, user_data
from augbench.jobs import resources as costs
from augbench.jobs.job_costs import JobCosts
from augbench.jobs.paths import Paths
from augbench.jobs.report_files import leaves, measured_jobs, report_files
from augbench.jobs.rules import numbered_rule, share_gpus, touched, track_changes, value_at
from augbench.jobs.study_files import StudyFiles
from augbench.study import config as configuration
from augbench.study.sections.audit import REFERENCES
from augbench.study.sections.classifier import MAIN

logs.share_library()

# A module's prefix changes inputs and outputs, but not the paths in parameters and in the user's configuration.
if workflow.modifier.path_modifier.replace_prefix("results/report.html") != "results/report.html":
    raise WorkflowError("augbench writes into results/: leave out `prefix` or `replace_prefix` of the module augbench")


def script_file(name):
    """A user's script, or else one of augbench's own, such as examples/affine.py."""
    return name if Path(name).is_file() else workflow.source_path(f"../../{name}")


# The configuration's own methods join the table.
table = load_configfile(workflow.source_path("../../config/methods.yaml"))
update_config(table, config)
try:
    CONFIG = configuration.parse(table)
    # Each job of a run reads this file again; it need not look at the whole target again.
    SHOWN = list(CONFIG.studies)  # by the report; each draw of a target is a study beside
    EACH_DRAW = configuration.with_draws(CONFIG)
    METHODS, STUDIES = EACH_DRAW.methods, EACH_DRAW.studies
    FILES = {name: StudyFiles(EACH_DRAW, name) for name in STUDIES}
    COSTS = {name: JobCosts(files) for name, files in FILES.items()}
    crowded, remarks = [], []
    if workflow.is_main_process:
        checks.check_world(CONFIG, script_file=script_file)
        checks.check_filters(COSTS)
        crowded = checks.crowded(COSTS)
        remarks = checks.remarks(CONFIG)
except (configuration.ConfigError, ValueError) as error:
    raise WorkflowError(str(error))
for sentence in [*crowded, *remarks]:
    print(sentence, file=sys.stderr)

DATA = user_data.of_studies(STUDIES)
ANY = Paths("{study}")  # the paths of any study, for outputs


def one_of(studies):
    """A wildcard constraint for these studies alone; it matches nothing when there are none."""
    return "|".join(studies) or "(?!)"


wildcard_constraints:
    study="|".join(STUDIES),
    method="|".join(METHODS),
    backbone=one_of({name for study in STUDIES.values() for name in study.backbones}),
    classifier=one_of({name for study in STUDIES.values() for name in study.all_classifiers}),
    images=r"splits|[^/]+/x[0-9.]+",
    purpose="base|screen|selected|further",
    rate=r"[0-9.e+-]+",
    part="[0-9]+",
    ratio=r"[0-9.]+",
    shard="[0-9]+",
    extent="main|further",
    set="|".join({"train", *REFERENCES}.union(*([*s.audit.references, *s.evaluate] for s in STUDIES.values()))),


def packed_pools(downloads):
    """A wildcard constraint for the studies of whose pools shards are made here, from images that are downloaded or not."""
    sources = {name: study.pool.source for name, study in STUDIES.items() if study.pool}
    return one_of(name for name, source in sources.items() if source.is_packed and source.downloads == downloads)


def study_of(wildcards):
    return STUDIES[wildcards.study]


def files_of(wildcards):
    return FILES[wildcards.study]


def costs_of(wildcards):
    return COSTS[wildcards.study]


def setting(key):
    """A params function: a section of the study, e.g. setting("generate"), or one value of it."""
    return lambda wildcards: value_at(study_of(wildcards), key)


def method_row(wildcards):
    return files_of(wildcards).method_row(wildcards.method)


def classifier_of(wildcards):
    """The name of the classifier that a job trains."""
    return wildcards.get("classifier", MAIN)


def classifier_section(wildcards):
    return study_of(wildcards).all_classifiers[classifier_of(wildcards)]


def recipe(wildcards):
    return files_of(wildcards).recipe(wildcards.method)


def pool_index(wildcards):
    """What answers queries, if it lies here. What lies at a user's path is tracked by its digest."""
    folders = files_of(wildcards).index
    return [ancient(folder) for folder in folders] if study_of(wildcards).pool.path else folders


def chosen_for(wildcards, file):
    """A file that jobs want which draw more images of a fine-tuned method's chosen candidate."""
    goes_on = wildcards.purpose in ("selected", "further") and files_of(wildcards).is_trained(wildcards.method)
    return file.format(**wildcards) if goes_on else []


def data_in(*places):
    """A params function: digests of what the user put into these places. A job has no use for them, and lists nothing."""
    if not workflow.is_main_process:
        return None
    return lambda wildcards: " ".join(getattr(DATA[wildcards.study], place) for place in places)


def numbered(name, place):
    return numbered_rule(name, place, workflow.resource_settings)


def together(study, first, last):
    file = FILES[study].together(first, last)
    return touched(file) if workflow.is_main_process else file


def needs(rule, **more):
    """Memory and run time of a rule's jobs, see JobCosts; GPUs stand in the rules."""

    def need(wildcards):
        facts = {name: value for name, value in wildcards.items() if name != "study"}
        return getattr(costs_of(wildcards), rule)(**facts, **more)

    return {
        "mem_mb": lambda wildcards, attempt: costs.megabytes(need(wildcards).megabytes, attempt),
        "runtime": lambda wildcards, attempt: costs.minutes(need(wildcards).seconds, attempt),
    }


def is_light(rule):
    """Whether all jobs of a rule are so small that Snakemake itself can run them, without a place in the queue."""
    return not workflow.is_main_process or all(study.largest(rule) <= costs.LIGHT for study in COSTS.values())


def refuse_crowded_disk():
    """When work starts: what another machine will do may be planned where there is no room for it."""
    if crowded:
        raise WorkflowError("\n".join(crowded))


def print_stage_times():
    for name, files in FILES.items():
        jobs = [benchmarks.Job(*job) for job in measured_jobs(files)]
        times = benchmarks.stage_times(benchmarks.measure(jobs))
        if len(times):
            print(f"\nTime per stage, study {name}:\n{times.to_string(index=False)}", file=sys.stderr)
