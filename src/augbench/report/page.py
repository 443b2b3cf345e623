"""Joins what the studies measured into one page that can be read anywhere, without a network."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from augbench.audit import verdicts
from augbench.core import files, package_data, pages
from augbench.images.thumbnails import thumbnail
from augbench.report import catalogue, class_details, comparison, compute, galleries
from augbench.report.environment import hardware, versions
from augbench.report.figures import (
    FAMILY_COLOURS,
    FATES,
    FUNNEL_CLASSES,
    OTHER_COLOUR,
    curve_figure,
    improvement_figure,
    svg,
)
from augbench.report.tables import paper_dataset, published
from augbench.study import classes

CLASSES = 6  # classes in a gallery
DOMAINS = 3  # classes for which prompted and fine-tuned images are compared
CLOSEST = 10  # classes that retrieval could fill only just, or not
PAIRS = 10  # closest candidate pairs per method
VERDICTS = Path("resources/verdicts")  # people's, STUDY/METHOD.csv
INLINE = ("figure1a", "accuracy", "differences", "figure5b")  # figures of the page that are drawn as in the folder
PAPER_COMPUTE = package_data.bundled("paper_compute.csv")
PAPER_RESULTS = package_data.bundled("paper_results.csv")


def gather(
    study: str,
    folder: str | Path,
    methods: Mapping[str, Mapping],
    settings: Mapping,
    generated: Mapping[str, Sequence[str | Path]],
) -> dict:
    """Everything the page shows of a study, as plain data, from the files in ``folder`` (results/{study}).

    ``methods`` maps method keys, in their order, to rows of the method table (title, family, start);
    ``settings`` is the study's configuration, ``generated`` the image tables of each method that generates.
    Of several augmentation ratios the main one is shown. What a study has no files for (retrieval, audit,
    curves) is empty.
    """
    folder = Path(folder)
    summaries = [files.read_json(folder / "summary" / f"{key}.json") for key in methods]
    families = list(dict.fromkeys(summary["family"] for summary in summaries))
    summaries.sort(key=lambda summary: families.index(summary["family"]))  # as in the paper's Table 1
    ratio = f"x{max(summary['asked_ratio'] for summary in summaries):g}"  # 0 for what adds nothing
    class_table = pd.read_csv(folder / "dataset" / "classes.csv", dtype=str, keep_default_na=False)
    kept = [_class(row) | {"train": int(row["train"])} for row in _rows(class_table) if not row["excluded"]]
    shown = kept[:CLASSES]
    sets = galleries.Sets(folder, summaries, ratio)
    table = pd.read_csv(folder / "tables" / "table1.csv", keep_default_na=False, na_values=[""])
    return {
        "study": study,
        "folder": str(folder),
        "ratio": ratio,
        "seed": settings.get("seed"),
        "settings": json.loads(json.dumps(settings, default=str)),
        "summaries": summaries,
        "answer": comparison.answer(summaries, _read_differences(folder)),
        "table1": sorted(
            table.astype(object).where(table.notna(), None).to_dict("records"),
            key=lambda row: families.index(row["family"]),
        ),
        "differences": _differences(folder, summaries),
        "published_as": (dataset := paper_dataset(settings)),
        "further_published": _further_published(dataset, summaries),
        "improvements": class_details.improvements(folder, summaries, kept, sets),
        "scaling": _scaling(folder, summaries),
        "per_class": class_details.details(folder, summaries, kept, sets),
        "classes": _classes(class_table),
        "excluded": [_class(row) | {"why": row["excluded"]} for row in _rows(class_table) if row["excluded"]],
        "figure1a": best_of_families(summaries),
        "gap": _gap(folder, summaries),
        "finetuned": [
            found for row in summaries if (found := galleries.finetuned(folder, row, shown, generated, methods))
        ],
        "templates": [
            found for row in summaries if (found := galleries.templates(folder, row, shown, generated, methods))
        ],
        "clusters": [
            found for row in summaries if (found := galleries.clusters(folder, row, shown, generated, methods))
        ],
        "gallery": sets.grid(sets.paths, shown),
        "variations": next(
            (found for row in summaries if (found := galleries.variations(sets, row, shown, row["start"]))), None
        ),
        "domains": _domains(folder, summaries, methods, kept, sets),
        "funnels": [found for summary in summaries if (found := _funnel(folder, summary, class_table))],
        "audit": [found for summary in summaries if (found := _audit(folder, summary))],
        "reviews": [found for summary in summaries if (found := _review(study, folder, summary, settings))],
        "curves": [found for summary in summaries if (found := _curves(folder, summary))],
        "stages": stage_times(folder).to_dict("records"),
        "wall_seconds": wall_seconds(folder),
        "compute": compute.gather(
            folder,
            methods,
            pd.read_csv(PAPER_COMPUTE),
            _images(kept, settings, generated),
            ratio,
        ),
        "versions": versions(),
        "hardware": hardware(),
    }


def _rows(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


def _class(row: Mapping) -> dict:
    name = str(row.get("lemmas") or row["class"]).split(",")[0].strip()
    return {"class": row["class"], "name": name}


def _classes(classes: pd.DataFrame) -> dict:
    kept = classes[classes["excluded"] == ""]
    return {"all": len(classes), "kept": len(kept), "train": int(pd.to_numeric(kept["train"]).sum())}


def wall_seconds(folder: str | Path) -> float:
    """Seconds in which at least one job of the study ran, from its benchmark files: pauses do not count."""
    spans = []
    for path in Path(folder).joinpath("benchmarks").rglob("*.tsv"):
        took = pd.to_numeric(pd.read_csv(path, sep="\t")["s"], errors="coerce").sum()
        spans.append((path.stat().st_mtime - took, path.stat().st_mtime))
    total, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def stage_times(folder: str | Path) -> pd.DataFrame:
    """Time per stage from the benchmark files below ``folder``/benchmarks; a stage is a folder there.

    Returns stage, jobs, seconds (wall-clock, summed over jobs) and max_rss_mb (resident memory of the
    largest job, MiB; empty where it was not measured), the longest stage first.
    """
    root = Path(folder) / "benchmarks"
    parts = []
    for path in sorted(root.rglob("*.tsv")):
        table = pd.read_csv(path, sep="\t")
        place = path.relative_to(root)
        parts.append(
            pd.DataFrame(
                {
                    "stage": place.parts[0] if len(place.parts) > 1 else place.stem,
                    "seconds": compute.attempts(path)[0],
                    "max_rss_mb": pd.to_numeric(table["max_rss"], errors="coerce"),
                }
            )
        )
    if not parts:
        return pd.DataFrame(columns=["stage", "jobs", "seconds", "max_rss_mb"])
    grouped = pd.concat(parts).groupby("stage")
    times = grouped.agg(jobs=("seconds", "size"), seconds=("seconds", "sum"), max_rss_mb=("max_rss_mb", "max"))
    times = times.round({"seconds": 1, "max_rss_mb": 0}).reset_index()
    return times.sort_values(["seconds", "stage"], ascending=[False, True], ignore_index=True)


def _images(kept: Sequence[Mapping], settings: Mapping, generated: Mapping) -> dict[str, compute.Images]:
    """How many images each generating method made for Table 1, and in all."""
    amount, counts = settings["generate"], {}
    for key, tables in generated.items():
        wanted = sum(classes.generated(row["train"], amount["times"], amount["images_per_class"]) for row in kept)
        counts[key] = compute.Images(wanted, sum(map(_length, tables)))
    return counts


def _length(table: str | Path) -> int:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(table).metadata.num_rows


# --- methods and classes


def _read_differences(folder: Path) -> pd.DataFrame:
    path = folder / "tables" / "differences.csv"
    return pd.read_csv(path, dtype={"method": str, "other": str}, keep_default_na=False, na_values=[""])


def _differences(folder: Path, summaries: Sequence[Mapping]) -> list[dict]:
    """The differences that each of the study's questions asks for, with titles; questions without any are left out."""
    table, about = _read_differences(folder), {row["method"]: row for row in summaries}
    parts = []
    for question, pairs in comparison.questions(summaries).items():
        if not pairs:
            continue
        # Each is named after the method that changes from row to row.
        changing = "method" if question == comparison.HELPS else "other"
        rows = [
            row
            | {key: about[row[changing]][key] for key in ("title", "family")}
            | {"counts": row["p_holm"] is not None and row["p_holm"] < comparison.LEVEL}
            for row in comparison.asked(table, pairs)
        ]
        if question == comparison.HELPS:
            label = f"minus {about[pairs[0][1]]['title']} (percentage points)"
        else:
            label = f"{about[pairs[0][0]]['title']} minus each method (percentage points)"
        best = about[pairs[0][0]] if question == comparison.WHICH else None
        retrieving = sum(row["start"] == "pool" for row in summaries)
        parts.append({"question": question, "label": label, "rows": rows, "best": best, "retrieving": retrieving})
    return parts


def _further_published(dataset: str | None, summaries: Sequence[Mapping]) -> list[dict]:
    """The paper's figures for a study's data set that are of no method of the study."""
    table = published(pd.read_csv(PAPER_RESULTS), dataset)
    mine = {row["method"] for row in summaries}
    return table[~table["method"].isin(mine)].to_dict("records")


def _scaling(folder: Path, summaries: Sequence[Mapping]) -> dict | None:
    """Figure 5B: the methods with more than one ratio, each with its rows by ratio; None where there is none."""
    path = folder / "tables" / "scaling.csv"
    if not path.exists():
        return None
    table = pd.read_csv(path, dtype={"method": str}, keep_default_na=False, na_values=[""])
    table = table.astype(object).where(table.notna(), None)
    lines = []
    for row in summaries:
        found = table[table["method"] == row["method"]].sort_values("ratio").to_dict("records")
        if len(found) > 1:
            lines.append({key: row[key] for key in ("method", "title", "family")} | {"rows": found})
    without = next((row["accuracy_mean"] for row in summaries if row["start"] == "none"), None)
    return {"lines": lines, "without": without} if lines else None


def _domains(
    folder: Path,
    summaries: Sequence[Mapping],
    methods: Mapping[str, Mapping],
    kept: Sequence[Mapping],
    sets: galleries.Sets,
) -> dict | None:
    """Figure 7: training images beside those of the best prompted and the best fine-tuned method.

    The classes are those that fine-tuning helps most, by their accuracy; the first ones where that is not known.
    None without a method of both kinds.
    """
    noise = [row for row in summaries if row["start"] == "noise"]
    kinds = [[row for row in noise if bool(methods[row["method"]].get("trained")) == trained] for trained in (0, 1)]
    if not all(kinds):
        return None
    prompted, tuned = (comparison.best(rows)["method"] for rows in kinds)
    gains = class_details.gains(folder, tuned, prompted)
    chosen = sorted(kept, key=lambda about: -gains.get(about["class"], 0.0))[:DOMAINS]
    return sets.grid(["", prompted, tuned], chosen)


# --- stages


def _gap(folder: Path, summaries: Sequence[Mapping]) -> list[dict]:
    """Rows of the domain gap table, in the order of the methods; none for a study without a judge."""
    path = folder / "tables" / "domain_gap.csv"
    if not (path.exists() and any(row["start"] in catalogue.REAL for row in summaries)):
        return []
    rows = pd.read_csv(path).set_index("method").to_dict("index")
    return [
        rows[row["method"]] | {"title": row["title"], "family": row["family"]}
        for row in summaries
        if row["method"] in rows
    ]


def _funnel(folder: Path, summary: Mapping, classes: pd.DataFrame) -> dict | None:
    """How many neighbours of each class met which fate, and the classes that were nearly not, or not, filled."""
    path = folder / "retrieval" / summary["method"] / "funnel.csv"
    if not (path.exists() and summary["start"] == "pool"):
        return None
    table = pd.read_csv(path, dtype={"class": str}, keep_default_na=False).set_index("class")
    known = list(table)[2:]  # after wanted and considered
    fates = [fate for fate in sorted(known, key=[*FATES, *known].index) if table[fate].any()]
    rows = []
    for row in _rows(classes):
        found = table.loc[row["class"]]
        rows.append(
            _class(row)
            | {"counts": [int(found[fate]) for fate in fates], "good": int(found["used"] + found["spare"])}
            | {name: int(found[name]) for name in ("wanted", "considered", "used")}
        )
    closest = sorted(rows, key=lambda row: (row["used"] / row["wanted"], row["good"] / max(1, row["considered"])))
    return {
        "method": summary["method"],
        "title": summary["title"],
        "fates": fates,
        "rows": rows,
        "closest": closest[:CLOSEST],
        "total": [int(table[fate].sum()) for fate in fates],
        "source": str(path),
    }


def _audit(folder: Path, summary: Mapping) -> dict | None:
    """The audit of one method with its closest candidate pairs; None for a method without one."""
    place = folder / "audit" / summary["method"]
    if not (place / "summary.json").exists():
        return None
    table = pd.read_parquet(place / "candidates.parquet")
    return files.read_json(place / "summary.json") | {
        "method": summary["method"],
        "title": summary["title"],
        "family": summary["family"],
        "start": summary["start"],
        "pairs": _closest(table),
        "leaks": _closest(table[table["reference_set"] == "test"]),
        "candidates": len(table),
    }


def _closest(candidates: pd.DataFrame) -> list[dict]:
    """Pictures of both sides of the candidate pairs with the smallest distances."""
    pairs = []
    for row in candidates.sort_values("distance", kind="stable").head(PAIRS).itertuples():
        both = {}
        for side in ("added", "reference"):
            columns = {name: getattr(row, f"{side}_{name}") for name in ("path", "offset", "length")}
            where = pd.Series({"image_id": getattr(row, f"{side}_id")} | columns)
            text = "added" if side == "added" else f"{row.reference_set} image"
            both[side] = thumbnail(where, f"{text} {where.image_id}")
        pairs.append(both | {"distance": int(row.distance), "set": row.reference_set})
    return pairs


def _review(study: str, folder: Path, summary: Mapping, settings: Mapping) -> dict | None:
    """What people's verdicts on a method's duplicate candidates say; None for a method without verdicts.

    Raises ValueError with one sentence when the verdicts do not fit the candidates.
    """
    path = VERDICTS / study / f"{summary['method']}.csv"
    place = folder / "audit" / summary["method"]
    if not (path.is_file() and (place / "summary.json").exists()):
        return None
    audit = files.read_json(place / "summary.json")
    candidates = pd.read_parquet(place / "candidates.parquet")
    sizes = {name: found["images"] for name, found in audit["references"].items()}
    rule = settings["audit"]
    sampling = rule["inspected"], rule["in_full"], settings["seed"], summary["method"]
    sets = verdicts.summarise(candidates, verdicts.read(path, candidates), sizes, *sampling)
    return {"title": summary["title"], "source": str(path), "added": audit["added"], "sets": sets}


def _curves(folder: Path, summary: Mapping) -> dict | None:
    """Validation accuracies (percent) per epoch of all runs of a method; None without a history."""
    place = folder / "classifier" / summary["method"] / f"x{summary['asked_ratio']:g}"
    # Not what lies there: another configuration of the study may have had more runs.
    paths = [place / f"run-{k}" / "history.csv" for k in range(1, summary["runs"] + 1)]
    runs = [pd.read_csv(path) for path in paths if path.exists()]
    runs = [{"epoch": list(run["epoch"]), "accuracy": list(run["validation_accuracy"])} for run in runs]
    if not runs:
        return None
    return {key: summary[key] for key in ("method", "title", "family")} | {"runs": runs}


def best_of_families(summaries: Sequence[Mapping]) -> list[dict]:
    """The bars of Figure 1A: the target data only, and of each family that adds images its best method."""
    floor = [row for row in summaries if row["start"] == "none"]
    families = dict.fromkeys(row["family"] for row in summaries if row["family"] != "baseline")
    best = [comparison.best([row for row in summaries if row["family"] == family]) for family in families]
    return [_bar(row) for row in floor + best]


def _bar(summary: Mapping) -> dict:
    return {key: summary[key] for key in ("method", "title", "family", "start", "accuracy_mean", "accuracy_se")}


# --- page


def write(path: str | Path, studies: Sequence[Mapping]) -> None:
    """Write the page over ``studies`` (each from :func:`gather`): one file that needs nothing else.

    All text from data is escaped; pictures are inside the page as data URIs.
    """
    import yaml

    place = Path(path).resolve().parent
    page = pages.template(
        "report.html.j2",
        probability=_probability,
        number=_number,
        duration=_duration,
        link=lambda target: _link(target, place),
    )
    shown = []
    for number, study in enumerate(studies, 1):
        figures = {key: _markup(text) for key, text in _figures(study, f"s{number}").items()}
        text = yaml.safe_dump(study["settings"], sort_keys=False, allow_unicode=True)
        shown.append(dict(study) | {"id": f"s{number}", "figures": figures, "yaml": text})
    text = page.render(studies=shown, funnel_classes=FUNNEL_CLASSES, colours=FAMILY_COLOURS, other_colour=OTHER_COLOUR)
    files.write_text(path, text)


def _figures(study: Mapping, name: str) -> dict[str, str]:
    """The figures of the page, which shows pictures beside them as elements of its own."""
    drawn = {
        key: drawing
        for key, (drawing, _) in catalogue.drawings(study).items()
        if key in INLINE or key.startswith("funnel-")
    }
    if study["improvements"]:
        drawn["figure5a"] = improvement_figure(study["improvements"])
    drawn |= {f"loss-{k}": catalogue.losses(item) for k, item in enumerate(study["finetuned"])}
    if study["curves"]:
        limits = catalogue.limits(study["curves"])
        drawn |= {f"curve-{k}": curve_figure(item, limits) for k, item in enumerate(study["curves"])}
    return {key: svg(drawing, f"{name}-{key}", themed=True) for key, drawing in drawn.items()}


def _link(target: str, place: Path) -> str:
    """The relative address of a file as seen from the page's folder; empty for one that is not there."""
    return quote(os.path.relpath(Path(target).resolve(), place)) if Path(target).exists() else ""


def _markup(svg: str):
    """Figures are our own XML, in which matplotlib has escaped every text from data."""
    from markupsafe import Markup

    return Markup(svg)


def _number(value: float | None, places: int = 1) -> str:
    """A number with so many decimal places; a dash where there is none."""
    return "–" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:,.{places}f}"


def _probability(value: float | None) -> str:
    """A p-value with three decimal places; a dash where there is none."""
    return "< 0.001" if value is not None and value < 0.001 else _number(value, 3)


def _duration(seconds: float) -> str:
    """Seconds as text: 12.3 s, 4 min 05 s or 3 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
