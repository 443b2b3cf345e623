from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.diffusion import sampling
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Generate
from augbench.study.sections.models import Loading

params, wildcards = snakemake.params, snakemake.wildcards
share = sampling.Share(
    wildcards.method,
    wildcards.purpose,
    part=int(wildcards.shard),
    parts=params.parts,
    ratio=params.ratio,
    times=params.times,
    further=params.further,
)
sampling.generate(
    sampling.GenerateInputs.model_validate(snakemake.input),
    share,
    Method.from_row(params.method),
    Generate(**params.settings),
    snakemake.output.shard,
    snakemake.output.images,
    seed=params.seed,
    loading=Loading(**params.loading),
    progress=progress(),
)
