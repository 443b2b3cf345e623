from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

import pandas as pd

from augbench.core import files
from augbench.report.comparison import differences, read_hits
from augbench.report.tables import OTHER_DATASET, published, scaling, table1

given = snakemake.input
summaries = [files.read_json(path) for path in given.summaries]
runs = len(given.predictions) // len(summaries)
predictions = {summary["method"]: given.predictions[k * runs : (k + 1) * runs] for k, summary in enumerate(summaries)}
paper = published(pd.read_csv(given.paper), snakemake.params.dataset or OTHER_DATASET)
files.write_csv(snakemake.output.table1, table1(summaries, paper))
files.write_csv(snakemake.output.scaling, scaling(summaries))
files.write_csv(snakemake.output.differences, differences(summaries, read_hits(predictions)))
