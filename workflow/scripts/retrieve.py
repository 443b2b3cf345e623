from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.retrieval.retrieve import Inputs, Outputs, retrieve_method
from augbench.study.sections.retrieval import Pool, Retrieval

files = snakemake.input
retrieve_method(
    snakemake.wildcards.method,
    snakemake.params.method,
    Pool(**snakemake.params.pool),
    Retrieval(**snakemake.params.settings),
    snakemake.params.clip_model,
    snakemake.params.ratio,
    snakemake.params.fill_to,
    Inputs(
        files.classes,
        files.images,
        files.safety or None,
        index=files.index[0] if files.index else None,
        captions=files.captions[0] if files.captions else None,
        head=files.head or None,
        web=files.web or None,
        kept=files.get("kept"),
        main=files.get("main"),
    ),
    Outputs(**dict(snakemake.output.items())),
    progress(0),
)
