# augbench: retrieve or generate? `snakemake results/report.html` builds everything; see README.md.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")


# Studies come from --configfile, or from config/config.yaml of the working directory, or else from this workflow.
study = "config/config.yaml"
if not Path(study).exists():
    study = workflow.current_basedir.join(study).get_path_or_uri(secret_free=False)
if "studies" not in config:

    configfile: study


include: "workflow/rules/common.smk"
include: "workflow/rules/digits.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/retrieval.smk"
include: "workflow/rules/diffusion.smk"
include: "workflow/rules/classifier.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/report.smk"


track_changes(workflow)
share_gpus(workflow)


rule all:
    default_target: True
    input:
        "results/report.html",
        # Also what the report does not read itself: a shard that was deleted is made again.
        [file for files in FILES.values() for file in files.stored_shards],


# results/STUDY/status.html and a line per stage in the terminal, while jobs run.
onstart:
    refuse_crowded_disk()
    status.watch(workflow.dag, STUDIES, logger)


onsuccess:
    status.stop_watching("finished")
    print_stage_times()


onerror:
    status.stop_watching("failed")
