from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.core import files
from augbench.report import per_class

methods, given = snakemake.params.methods, list(snakemake.input)
runs = len(given) // len(methods)
predictions = {method: given[k * runs : (k + 1) * runs] for k, method in enumerate(methods)}
for path, table in zip(snakemake.output, per_class.measure(predictions), strict=True):
    files.write_csv(path, table)
