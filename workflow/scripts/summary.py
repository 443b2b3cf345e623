from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import files, images
from augbench.summary import summarise

metrics = [files.read_json(path) for path in snakemake.input.metrics]
ratios = [float(ratio) for ratio in snakemake.params.ratios]
runs = len(metrics) // len(ratios)
files.write_json(
    snakemake.output[0],
    summarise(
        snakemake.wildcards.method,
        snakemake.params.method,
        {ratio: metrics[place * runs : (place + 1) * runs] for place, ratio in enumerate(ratios)},
        files.read_json(snakemake.input.audit) if snakemake.input.audit else None,
        len(images.read(snakemake.input.test)),
    ),
)
