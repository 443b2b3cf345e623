"""Scores of the images that each method could add, and what was left out by them."""

from collections.abc import Mapping

from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.plan import Plan
from augbench.report.results import StudyResults
from augbench.study.scores import SCORES

NAMED = 3  # classes with too few images that are named
SHOWN = {
    "clip": "CLIP",
    "clip_images": "CLIP, images",
    "confidence": "Confidence",
    "train_bits": "Training, bits",
    "train_distance": "Training, distance",
    "held_out_bits": "Held out, bits",
    "held_out_distance": "Held out, distance",
    "novelty": "Novelty, bits",
}
assert set(SHOWN) == set(SCORES)


def has_filters(plan: Plan) -> bool:
    return plan.settings.drop_leaks or any(method.filter for method in plan.methods.values())


def scores(results: StudyResults) -> dict:
    """The median of each score of each method's images; None where the study has no model for it."""
    rows = []
    for method in (name for name in results.plan.adding if name in results.files.scores):
        medians = results.scores(method)[list(SHOWN)].median()
        values = [None if value != value else float(value) for value in medians]
        rows.append(results.plan.named(method) | {"values": values})
    return {"rows": rows, "names": list(SHOWN.values())}


def filters(results: StudyResults) -> dict:
    """Of each method of whose images some are left out: what its filter says, and how many were left out and why."""
    return {"rows": [_filtered(results, key) for key in results.plan.adding if key in results.files.filtered]}


def _filtered(results: StudyResults, method: str) -> dict:
    counts, rule = results.filtered(method), results.plan.methods[method].filter
    totals = {name: int(counts[name].sum()) for name in ("candidates", "leaks", "filtered", "kept")}
    words = ""
    if rule:
        words = f"the best {100 * rule.keep:g}%" if rule.keep else f"at least {rule.at_least:g}"
        words = f"{rule.by.name}: {words}"
    return results.plan.named(method) | totals | {"rule": words, "short": _short(results, counts)}


def _short(results: StudyResults, counts) -> str:
    short = counts[counts["kept"] < counts["wanted"]]
    if not len(short):
        return ""
    rows = zip(short["class"], short["kept"], short["wanted"], strict=True)
    named = [f"{results.names.get(key, key)}: {kept} of {wanted}" for key, kept, wanted in rows]
    shown, more = ", ".join(named[:NAMED]), ", ..." * (len(named) > NAMED)
    return f"{len(short)} of {len(counts)} classes have fewer than the study asks for ({shown}{more})"


def _caption(data: Mapping) -> str:
    left_out = sum(row["leaks"] + row["filtered"] for row in data["rows"])
    return (
        f"Images that were left out before training, {left_out} in all; filtered/METHOD/main/ledger.csv names each and "
        "says why."
    )


EXHIBITS = [
    Exhibit(
        name="scores",
        section="scores",
        applies=lambda plan: bool(plan.adding) and (plan.settings.scores or has_filters(plan)),
        data=scores,
        caption="Median scores of all images that a method could add. Of each score more is better: the more an image "
        "shows its class, or the less it repeats another image.",
        description="Table of scores of images",
        template="report/scores.html.j2",
    ),
    Exhibit(
        name="filters",
        section="scores",
        applies=lambda plan: bool(plan.adding) and has_filters(plan),
        data=filters,
        caption=_caption,
        description="Table of what was left out",
        template="report/filters.html.j2",
    ),
]
