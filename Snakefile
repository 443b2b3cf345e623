# augbench: retrieve or generate? `snakemake results/report.html` builds everything; see README.md.
from snakemake.utils import min_version

min_version("9.27")


# Your own --configfile takes the place of the default study; methods it defines join the table.
configfile: "config/methods.yaml"


if "studies" not in config:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/digits.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/retrieval.smk"
include: "workflow/rules/diffusion.smk"
include: "workflow/rules/classifier.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/report_files.smk"
include: "workflow/rules/report.smk"


track_code()
name_parameters()


rule all:
    default_target: True
    input:
        "results/report.html",
        # Also what the report does not read itself: a shard that was deleted is made again.
        [file for study in STUDIES for file in stored_images(study)],


# results/STUDY/status.html and a line per stage in the terminal, while jobs run.
onstart:
    refuse_crowded_disk()
    watch(workflow.dag)


onsuccess:
    stop_watching("finished")
    print_stage_times()


onerror:
    stop_watching("failed")
