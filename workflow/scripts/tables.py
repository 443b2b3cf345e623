from augbench.jobs import log_to

log_to(snakemake.log[0])

import pandas as pd

from augbench import files
from augbench.comparison import differences
from augbench.summary import scaling, table1

summaries = [files.read_json(path) for path in snakemake.input.summaries]
files.write_csv(snakemake.output.table1, table1(summaries, pd.read_csv(snakemake.input.paper)))
files.write_csv(snakemake.output.scaling, scaling(summaries))
files.write_csv(snakemake.output.differences, differences(summaries))
