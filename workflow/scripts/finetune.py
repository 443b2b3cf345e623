from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from pathlib import Path

from augbench.diffusion import finetuning
from augbench.jobs import launching
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Finetune

job = {
    "inputs": finetuning.FinetuneInputs.model_validate(snakemake.input),
    "method": Method.from_row(snakemake.params.method),
    "settings": Finetune(**snakemake.params.settings),
    "folder": snakemake.output.candidates,
    "rate": float(snakemake.wildcards.rate),
    "seed": snakemake.params.seed,
    "save_minutes": snakemake.params.save_minutes,
}
launching.run(
    finetuning.finetune,
    job,
    Path(snakemake.output.candidates).with_name(f".lr-{snakemake.wildcards.rate}.processes"),
    threads=job["settings"].threads,
    processes=snakemake.resources.gpu,  # as many as there are, whatever was asked for
    machines=snakemake.resources.get("nodes", 1),
)
