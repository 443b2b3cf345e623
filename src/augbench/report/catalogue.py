"""The catalogue of what the report shows, in the order of the page.

The page and the folder of figures are views of it. A new figure or table is one entry, in the module of its theme below
``exhibits``.
"""

from typing import NamedTuple

from augbench.report.exhibits import (
    accuracy,
    classifiers,
    comparison,
    compute,
    conditionings,
    domain_gap,
    duplicates,
    evaluation,
    finetuning,
    groups,
    images,
    origins,
    per_class,
    retrieval,
    scaling,
    scores,
    set_metrics,
    subsamples,
    training,
)
from augbench.report.plan import Plan


class Section(NamedTuple):
    """A section of a study on the page: where it has an entry in the table of contents, its name there."""

    name: str
    heading: str
    entry: str = ""


SECTIONS = [
    Section("accuracy", "The best method of each family", "Accuracy"),
    Section("methods", "Accuracy by method"),
    Section("table1", "Table 1", "Table 1"),
    Section("differences", "Differences between methods", "Differences"),
    Section("classifiers", "Other classifiers", "Classifiers"),
    Section("evaluation", "Further test sets", "Further tests"),
    Section("scaling", "More added images", "Scaling"),
    Section("classes", "Class by class", "Classes"),
    Section("images", "What the methods add", "Images"),
    Section("gap", "Domain gap", "Domain gap"),
    Section("scores", "Scores and filters", "Filters"),
    Section("finetuning", "Fine-tuning", "Fine-tuning"),
    Section("retrieval", "What became of the retrieved neighbours", "Retrieval"),
    Section("audit", "Duplicate candidates", "Duplicates"),
    Section("curves", "Training curves", "Training"),
    Section("compute", "Compute per stage", "Compute"),
    Section("relative", "Compute, relative to retrieval"),
]
EXHIBITS = [
    *accuracy.EXHIBITS,
    *groups.EXHIBITS,
    *subsamples.EXHIBITS,
    *comparison.EXHIBITS,
    *classifiers.EXHIBITS,
    *evaluation.EXHIBITS,
    *scaling.EXHIBITS,
    *per_class.EXHIBITS,
    *images.EXHIBITS,
    *origins.EXHIBITS,
    *conditionings.EXHIBITS,
    *domain_gap.EXHIBITS,
    *set_metrics.EXHIBITS,
    *scores.EXHIBITS,
    *finetuning.EXHIBITS,
    *retrieval.EXHIBITS,
    *duplicates.EXHIBITS,
    *training.EXHIBITS,
    *compute.EXHIBITS,
]


def figures(plan: Plan) -> list[str]:
    """The figures of a study, without extension: each lies in its folder of figures as FIGURE_FILES."""
    return [name for exhibit in EXHIBITS if exhibit.draw for name in exhibit.names(plan)]
