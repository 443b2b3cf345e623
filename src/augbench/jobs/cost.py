"""What studies will cost, before anything starts: ``python -m augbench.jobs.cost CONFIG.yaml``.

A table of each study: per rule its jobs, hours, largest memory, GPU-hours and disk. Times are estimates, by the paper's
GPU-hours where it has any (:mod:`augbench.jobs.resources`).
"""

import argparse
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from augbench.jobs import resources
from augbench.jobs.job_costs import T4, V100, JobCosts, Need
from augbench.jobs.resources import HOUR
from augbench.jobs.study_files import StudyFiles
from augbench.study import config

METHODS = "config/methods.yaml"  # the method table, in the working directory
CARDS = (T4, V100)


def by_rule(jobs: Iterable[tuple[str, Need]]) -> pd.DataFrame:
    """A row per rule: jobs, hours by the clock (of all jobs one after the other), longest (hours of the longest job),
    GB of memory that its largest job asks for, GPU-hours by card, GB written to stay and GB written and removed."""
    rows: dict[str, dict] = {}
    for rule, need in jobs:
        row = rows.setdefault(rule, dict.fromkeys(["jobs", "hours", "longest", "memory", *CARDS, "disk", "dropped"], 0))
        hours = need.seconds / HOUR
        row["jobs"] += 1
        row["hours"] += hours
        row["longest"] = max(row["longest"], hours)
        row["memory"] = max(row["memory"], resources.megabytes(need.megabytes) / 1000)
        row[need.card] += hours * need.gpus
        row["disk"] += need.writes / 1e9
        row["dropped"] += need.drops / 1e9
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")
    return table.sort_values([V100, T4, "hours"], ascending=False, kind="stable")


def with_total(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`by_rule` with a last row, of sums and of the largest ``longest`` and ``memory``."""
    largest = ["longest", "memory"]
    total = table.sum().where(~table.columns.isin(largest), table.max())
    return pd.concat([table, total.to_frame("in all").T]).rename_axis("rule").astype({"jobs": int})


def describe(name: str, costs: JobCosts) -> str:
    """The table of a study as text, and what is to be known of it."""
    table = by_rule(costs.jobs())
    size = costs.size
    shown = with_total(table).rename(
        columns={
            "longest": "longest job (h)",
            "memory": "memory (GB)",
            **{card: f"{card}-hours" for card in CARDS},
            "disk": "disk (GB)",
            "dropped": "removed again (GB)",
        }
    )
    lines = [
        f"{name}: {size.images['train']:,} training images of {len(size.train):,} classes",
        shown.to_string(float_format=lambda value: f"{value:,.1f}"),
    ]
    return "\n".join([*lines, *remarks(table)])


def remarks(table: pd.DataFrame) -> list[str]:
    """Sentences on jobs whose work takes longer than any job may ask for."""
    limit = resources.MOST_MINUTES / 60
    return [
        f"A job of `{rule}` takes {hours:,.0f} hours. None asks for more than {limit:.0f}: it goes on from its state, "
        f"in {math.ceil(hours / limit)} attempts or more."
        for rule, hours in table["longest"].items()
        if hours > limit
    ]


def costs_of(files: Iterable[str | Path]) -> dict[str, JobCosts]:
    """The costs of the studies of configuration files, later ones over earlier ones as in ``--configfile``.

    Raises ConfigError, and ValueError for a target that is not there.
    """
    from snakemake.utils import update_config

    merged: dict = {}
    for file in [METHODS, *files]:
        update_config(merged, yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    parsed = config.with_draws(config.parse(merged))
    return {name: JobCosts(StudyFiles(parsed, name)) for name in parsed.studies}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m augbench.jobs.cost", description="What studies will cost.")
    parser.add_argument("config", nargs="+", help="configuration files, as for `snakemake --configfile`")
    try:
        studies = costs_of(parser.parse_args(arguments).config)
        print("\n\n".join(describe(name, costs) for name, costs in studies.items()))
    except (config.ConfigError, ValueError, OSError) as error:
        sys.exit(str(error))
    print(
        "\nHours are estimates, by the GPU-hours of the paper (section 3.1) where it has any: of a T4, of a V100 for "
        "fine-tuning. Hours: of all jobs, one after the other."
    )


if __name__ == "__main__":
    main()
