"""A study's part of the report: its section of the page, its folder of figures, and its table of costs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augbench.core import benchmarks, files, pages
from augbench.report import answer, compute, page
from augbench.report.catalogue import EXHIBITS, SECTIONS
from augbench.report.drawing import pdf, svg
from augbench.report.environment import hardware, versions
from augbench.report.exhibits.exhibit import Exhibit, text_for
from augbench.report.plan import Plan
from augbench.report.results import Files, StudyResults, records
from augbench.report.study_options import facts


def write(
    study: str,
    settings: Mapping,
    methods: Mapping[str, Mapping],
    paths: Mapping[str, Any],
    jobs: Sequence[Sequence[str]],
    outputs: Mapping[str, str],
) -> None:
    """Write what a study contributes to the report.

    Parameters
    ----------
    settings, methods : the study's configuration and its rows of the method table, as plain data
    paths : what :class:`augbench.report.results.Files` holds; each must exist
    jobs : the study's jobs, as fields of :class:`augbench.core.benchmarks.Job`
    outputs : ``page`` (results/STUDY/report.html), ``section`` (JSON from which pages of several studies are joined),
        ``answer`` (Markdown), ``figures`` (folder) and ``compute`` (CSV)
    """
    plan = Plan.of_rows(study, settings, methods)
    folder = Path(outputs["page"]).parent
    results = StudyResults(plan, Files(**paths), folder, [benchmarks.Job(*job) for job in jobs])
    gathered = gather(results)
    write_figures(outputs["figures"], gathered)
    files.write_csv(outputs["compute"], compute.table(compute.jobs_of(results.measurements)))
    part = section(results, gathered, settings)
    files.write_json(outputs["section"], part)
    files.write_text(outputs["answer"], answer.markdown(study, part["answer"]))
    page.write(outputs["page"], [outputs["section"]])


Gathered = dict[str, tuple[Exhibit, Any]]  # the exhibits of a study: name -> entry of the catalogue, and data


def gather(results: StudyResults) -> Gathered:
    """The data of every exhibit that the study has."""
    return {name: (exhibit, data) for exhibit in EXHIBITS for name, data in exhibit.gather(results)}


def write_figures(folder: str | Path, gathered: Gathered) -> None:
    """Write every figure as SVG and PDF, and its data as CSV.

    The folder is written as a whole: no figure stays of other methods that the study had before.
    """
    with files.whole(folder) as place:
        place.mkdir()
        for name, (exhibit, data) in gathered.items():
            if exhibit.draw and exhibit.table:
                drawing = exhibit.draw(data)
                (place / f"{name}.svg").write_text(svg(drawing), encoding="utf-8")
                (place / f"{name}.pdf").write_bytes(pdf(drawing))
                files.write_csv(place / f"{name}.csv", exhibit.table(data))


def section(results: StudyResults, gathered: Gathered, settings: Mapping) -> dict:
    """What pages show of a study: its name, what to do, its answer to the paper's question, the environment it was
    reported in, and its section as HTML."""
    plan = results.plan
    sections = [
        (each, [_shown(plan, name, *gathered[name]) for name in gathered if gathered[name][0].section == each.name])
        for each in SECTIONS
    ]
    html = pages.template("report/study.html.j2", **page.filters(results.folder)).render(
        study=plan.name,
        folder=str(results.folder),
        files=results.files,
        colours=plan.colours,
        classes=_classes(results),
        sections=[(each, shown) for each, shown in sections if shown],
        seed=plan.settings.seed,
        configuration=_configuration(settings),
        wall_seconds=benchmarks.wall_seconds(results.measurements),
    )
    made_with = {**versions(), **hardware()}
    answers = {"answer": answer.answer(facts(results)), "question": results.answer}
    return {"study": plan.name, **answers, "made_with": made_with, "html": html}


def _shown(plan: Plan, name: str, exhibit: Exhibit, data: Any) -> dict:
    """An exhibit as templates take it, with the drawings that the page shows."""
    drawn = {}
    if exhibit.draw:
        drawn = exhibit.inline(data) if exhibit.inline else {name: exhibit.draw(data)}
    return {
        "name": name,
        "title": exhibit.title,
        "template": exhibit.template,
        "is_figure": exhibit.draw is not None,
        "data": data,
        "caption": text_for(exhibit.caption, data),
        "description": text_for(exhibit.description, data),
        "drawings": {key: _markup(svg(each, f"{plan.name}-{name}-{key}", themed=True)) for key, each in drawn.items()},
    }


def _classes(results: StudyResults) -> dict:
    excluded = results.class_info[results.class_info["excluded"] != ""]
    return {
        "all": len(results.class_info),
        "kept": len(results.kept),
        "train": sum(row["train"] for row in results.kept),
        "validation": results.validation_count,
        "shots": results.plan.settings.dataset.shots,
        "excluded": [
            {"class": row["class"], "name": str(row["lemmas"] or row["class"]).split(",")[0].strip()}
            | {"why": row["excluded"]}
            for row in records(excluded)
        ],
    }


def _configuration(settings: Mapping) -> str:
    import yaml

    return yaml.safe_dump(json.loads(json.dumps(settings)), sort_keys=False, allow_unicode=True)


def _markup(svg: str):
    """Figures are our own XML, in which matplotlib has escaped every text from data."""
    from markupsafe import Markup

    return Markup(svg)
