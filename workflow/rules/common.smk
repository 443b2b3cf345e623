# What the rules share: the checked configuration, the files of its studies, and the helpers of parameters and resources.
import functools
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import update_config

from augbench.jobs import checks, logs, status, user_data
from augbench.jobs import resources as costs
from augbench.jobs.job_costs import JobCosts, rows
from augbench.jobs.rules import name_parameters, numbered_rule, track_code
from augbench.jobs.study_files import Paths, StudyFiles
from augbench.study import config as configuration
from augbench.study import prompts
from augbench.study.sections.audit import REFERENCES

logs.share_library()

# The configuration's own methods join the table.
table = load_configfile(workflow.source_path("../../config/methods.yaml"))
update_config(table, config)
try:
    CONFIG = configuration.parse(table)
    # Each job of a run reads this file again; it need not look at the whole target again.
    crowded, remarks = [], []
    if workflow.is_main_process:
        crowded = checks.check_world(CONFIG)
        remarks = checks.remarks(CONFIG)
except (configuration.ConfigError, ValueError) as error:
    raise WorkflowError(str(error))
for sentence in [*crowded, *remarks]:
    print(sentence, file=sys.stderr)

METHODS, STUDIES = CONFIG.methods, CONFIG.studies
FILES = {name: StudyFiles(CONFIG, name) for name in STUDIES}
COSTS = {name: JobCosts(files) for name, files in FILES.items()}
DATA = {name: user_data.UserData(study) for name, study in STUDIES.items()}
ANY = Paths("{study}")  # the paths of any study, for outputs
HERE = workflow.current_basedir.get_path_or_uri(secret_free=True)


wildcard_constraints:
    study="|".join(STUDIES),
    method="|".join(METHODS),
    purpose="base|screen|selected|further",
    rate=r"[0-9.e+-]+",
    part="[0-9]+",
    ratio=r"[0-9.]+",
    shard="[0-9]+",
    set="|".join({*REFERENCES}.union(*(study.audit.references for study in STUDIES.values()))),


def one_of(studies):
    """A wildcard constraint for these studies alone; it matches nothing when there are none."""
    return "|".join(studies) or "(?!)"


def study_of(wildcards):
    return STUDIES[wildcards.study]


def files_of(wildcards):
    return FILES[wildcards.study]


def costs_of(wildcards):
    return COSTS[wildcards.study]


def setting(section):
    """A params function: a section of the study, e.g. setting("generate"), or one value of it."""

    def value(wildcards):
        value = study_of(wildcards)
        for key in section.split("."):
            value = getattr(value, key)
        return value.model_dump() if hasattr(value, "model_dump") else value

    return value


def method_row(wildcards):
    """The method's row of the method table, and a digest of its templates: an edit of theirs runs it again."""
    row = METHODS[wildcards.method].model_dump(exclude={"title", "family"})
    return row | {"texts": texts_of(row["conditioning"])}


texts_of = functools.cache(prompts.digest)  # read once, not for each of thousands of jobs


def data_in(*places):
    """A params function: digests of what the user put into these places. A job has no use for them, and lists nothing."""

    def digests(wildcards):
        return " ".join(getattr(DATA[wildcards.study], place) for place in places)

    return digests if workflow.is_main_process else None


def track_changes():
    """Parameters by which Snakemake notices changes; of this workflow's rules, also where it is another's module."""
    if not workflow.is_main_process:
        return
    mine = [rule for rule in workflow.rules if rule.basedir.get_path_or_uri(secret_free=True) == HERE]
    track_code(mine, lambda rule: workflow.sourcecache.get_path(rule.basedir.join(rule.script)))
    name_parameters(mine)


def numbered(name, place):
    return numbered_rule(name, place, workflow.resource_settings)


def together(study, first, last):
    """An empty file that a job which makes several runs takes as an input, see StudyFiles.together."""
    file = Path(FILES[study].together(first, last))
    if workflow.is_main_process and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return str(file)


# Resources are functions of (wildcards, input, attempt); <TBD> while an input is missing.
def memory(megabytes):
    return lambda wildcards, attempt: costs.megabytes(megabytes, attempt)


def minutes(least):
    return lambda wildcards, attempt: costs.minutes(0, attempt, least=least)


def refuse_crowded_disk():
    """When work starts: what another machine will do may be planned where there is no room for it."""
    if crowded:
        raise WorkflowError("\n".join(crowded))
