"""Where added images come from, and what was checked of them."""

from collections.abc import Mapping

import pandas as pd

from augbench import images
from augbench.report.exhibits.exhibit import Exhibit, counted
from augbench.report.results import StudyResults
from augbench.study import classes

NAMED = 3  # classes with too few images that are named


def origins(results: StudyResults) -> dict:
    """Of each method that adds images, and of those whose images a union takes: where they come from, whether unsafe
    content was looked for, and which classes have fewer images than the study asks for."""
    plan = results.plan
    rows = [plan.named(key) | _origin(results, key) for key in [*plan.augmenting, *plan.in_unions]]
    return {"rows": rows, "unchecked": [row["title"] for row in rows if not row["checked"]]}


def _origin(results: StudyResults, method: str) -> dict:
    start, settings = results.plan.rows[method].start, results.plan.settings
    row = {"origin": start.meaning, "checked": _checker(results, method), "short": ""}
    if start.is_generated:
        row["origin"] += f",{made}" if (made := _by(_generated(results, method))) else ""
    if start.is_union:
        table = images.read_columns(results.files.added[method], columns=["class", "method"])
        counts, shares = table["method"].value_counts(), results.plan.unions[method]
        taken = (f"{counts.get(key, 0)} of {results.plan.rows[key].title}" for key in shares)
        row["origin"] = f"a union of {counted(len(table), 'image')} a run: {', '.join(taken)}"
        row["short"] = _short(results, method, table)
    if start.is_external:
        place = settings.added[method]
        table = results.external(method)
        row["origin"] = f"{counted(len(table), 'image')} made elsewhere{_by(table)}, {place.path or place.script}"
        row["short"] = _short(results, method, table)
    return row


def _checker(results: StudyResults, method: str) -> str:
    """By what a method's images were checked; empty for none."""
    settings, rows = results.plan.settings, results.plan.rows
    parts = list(results.plan.unions.get(method, [method]))
    unchecked = [key for key in parts if not (rows[key].start.is_checked and settings.safety.checks)]
    if len(unchecked) == len(parts):
        return ""
    own = settings.safety.named or "the backbone's own checker"
    return own + f"; not checked: {', '.join(rows[key].title for key in unchecked)}" * bool(unchecked)


def _generated(results: StudyResults, method: str) -> pd.DataFrame:
    """Images that a diffusion model generated for a method, or for another one whose images it takes."""
    if method in results.files.generated:
        return results.generated(method)
    return images.read_columns(results.files.added[method], columns=["model", "licence"])


def _by(table: pd.DataFrame) -> str:
    """What is known of the models that made images, and of their terms."""
    models, licences = (", ".join(sorted(set(table[name].dropna()) - {""})) for name in ("model", "licence"))
    return f" by {models}" * bool(models) + f" (licence: {licences})" * bool(licences)


def _short(results: StudyResults, method: str, table: pd.DataFrame) -> str:
    """The classes that have fewer images than are added to others, in a sentence; empty where none has."""
    ratio, counts = results.plan.settings.main_ratio, table["class"].value_counts().to_dict()
    wanted = {row["class"]: classes.added(row["wanted"], ratio) for row in results.kept}
    short = [key for key, count in wanted.items() if counts.get(key, 0) < count]
    if not short:
        return ""
    named = ", ".join(f"{results.names[key]}: {counts.get(key, 0)} of {wanted[key]}" for key in short[:NAMED])
    more = ", ..." if len(short) > NAMED else ""
    return f"{len(short)} of {len(wanted)} classes have fewer images than ratio {ratio:g} asks for ({named}{more})"


def _caption(data: Mapping) -> str:
    if not data["unchecked"]:
        return "Where the added images come from, and by what unsafe content was looked for."
    return (
        "Where the added images come from, and by what unsafe content was looked for. Not checked: the images of "
        f"{', '.join(data['unchecked'])}."
    )


EXHIBITS = [
    Exhibit(
        name="origins",
        section="images",
        applies=lambda plan: bool(plan.augmenting),
        data=origins,
        caption=_caption,
        description="Table of where added images come from",
        template="report/origins.html.j2",
    )
]
