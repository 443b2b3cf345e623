"""Joins what the studies measured into one page that can be read anywhere, without a network."""

import base64
import functools
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import files, images

CLASSES = 6  # classes in a gallery
PER_CLASS = 4  # images per class and method in a gallery
PAIRS = 10  # closest candidate pairs per method
THUMBNAIL = 96  # pixels, longer side: with the limits above it bounds the size of the page
LOSSLESS = 48  # pixels, longer side: images up to this size stay as they are
FUNNEL_CLASSES = 30  # bars in the retrieval figure
LABEL = 34  # characters of a name in a figure
CONFIDENCE = 0.95

PACKAGES = (
    "snakemake",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "clip-retrieval",
    "img2dataset",
    "imagehash",
    "pandas",
)
FAMILY_COLOURS = {
    "baseline": "#5b8bd0",
    "unconditional": "#9a80c8",
    "prompting": "#e08e33",
    "fine-tuning": "#4aa36b",
    "retrieval": "#d4574e",
}
OTHER_COLOUR = "#8a8f98"
FATES = {  # fate of a retrieved neighbour: its colour; fates that are not listed come last
    "used": "#2f9e62",
    "spare": "#9bd3ae",
    "unaesthetic": "#e6b450",
    "duplicate": "#7f9bd1",
    "dead": "#8a8f98",
    "unreadable": "#b48ead",
    "unsafe": "#d4574e",
}
# Colours that the page replaces by its own, so that figures follow light and dark.
INK, GRID = "#123456", "#654321"


def gather(study: str, folder: str | Path, methods: Mapping[str, Mapping], settings: Mapping) -> dict:
    """Everything the page shows of a study, as plain data, from the files in ``folder`` (results/{study}).

    ``methods`` maps method keys, in their order, to rows of the method table (title, family, start);
    ``settings`` is the study's configuration. Of several augmentation ratios the first is shown. What a
    study has no files for (retrieval, audit, curves) is empty.
    """
    folder = Path(folder)
    ratio = f"x{settings.get('ratios', [1])[0]:g}"
    summaries = [files.read_json(folder / "summary" / f"{key}.json") for key in methods]
    for summary in summaries:
        summary["start"] = methods[summary["method"]].get("start", summary["method"])
    classes = pd.read_csv(folder / "dataset" / "classes.csv", dtype=str, keep_default_na=False)
    table = pd.read_csv(folder / "tables" / "table1.csv", keep_default_na=False, na_values=[""])
    return {
        "study": study,
        "folder": str(folder),
        "ratio": ratio,
        "seed": settings.get("seed"),
        "settings": json.loads(json.dumps(settings, default=str)),
        "summaries": summaries,
        "answer": answer(summaries),
        "table1": table.astype(object).where(table.notna(), None).to_dict("records"),
        "classes": _classes(classes),
        "excluded": [_class(row) | {"why": row["excluded"]} for row in _rows(classes) if row["excluded"]],
        "gallery": _gallery(folder, classes, summaries, ratio),
        "funnel": _funnel(folder, classes),
        "audit": [found for summary in summaries if (found := _audit(folder, summary))],
        "curves": [found for summary in summaries if (found := _curves(folder, summary))],
        "stages": stage_times(folder).to_dict("records"),
        "versions": versions(),
    }


def _rows(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


def _class(row: Mapping) -> dict:
    name = str(row.get("lemmas") or row["class"]).split(",")[0].strip()
    return {"class": row["class"], "name": name}


def _classes(classes: pd.DataFrame) -> dict:
    kept = classes[classes["excluded"] == ""]
    return {"all": len(classes), "kept": len(kept), "train": int(pd.to_numeric(kept["train"]).sum())}


# --- what the numbers say


def interval(summary: Mapping) -> tuple[float, float]:
    """95% interval of a method's mean accuracy (percent), from Student's t; endless for a single run."""
    from scipy.stats import t

    if summary["accuracy_se"] is None:
        return -math.inf, math.inf
    half = float(t.ppf((1 + CONFIDENCE) / 2, summary["runs"] - 1)) * summary["accuracy_se"]
    return summary["accuracy_mean"] - half, summary["accuracy_mean"] + half


def separated(better: Mapping, worse: Mapping) -> bool:
    """Whether the 95% intervals of two methods do not overlap."""
    return interval(better)[0] > interval(worse)[1]


def answer(summaries: Sequence[Mapping]) -> dict:
    """The study's answer to "Retrieve or generate?": a ``verdict`` in a word or two and a ``sentence``."""
    added = sorted((row for row in summaries if row["family"] != "baseline"), key=lambda row: -row["accuracy_mean"])
    floor = next((row for row in summaries if row["start"] == "none"), None)
    if not added:
        return {"verdict": "", "sentence": "No method that adds images was part of this study."}
    best, rivals = added[0], added[1:]
    sentence = f"{best['title']} is the best of the methods that add images: {_accuracy(best)}"
    if rivals:
        second = f"{rivals[0]['title']} ({_accuracy(rivals[0])})"
        sentence += (
            f", clearly ahead of {second}"
            if separated(best, rivals[0])
            else f", but this does not separate it from the second, {second}: the 95% intervals overlap"
        )
    baselines = [f"{row['title']} {_accuracy(row)}" for row in summaries if row["family"] == "baseline"]
    if baselines:
        sentence += f"; baselines: {', '.join(baselines)}"
    return {"verdict": _verdict(best, rivals, floor), "sentence": sentence + "."}


def _verdict(best: Mapping, rivals: Sequence[Mapping], floor: Mapping | None) -> str:
    if floor and not separated(best, floor):
        return "Neither, as far as this study can tell."
    retrieves = best["family"] == "retrieval"
    other = next((row for row in rivals if (row["family"] == "retrieval") != retrieves), None)
    if other is None:
        return ""
    if not separated(best, other):
        return "Undecided."
    return "Retrieve." if retrieves else "Generate."


def _accuracy(summary: Mapping) -> str:
    error = (
        "" if summary["accuracy_se"] is None else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{summary['accuracy_se']:.1f}"
    )
    return f"{summary['accuracy_mean']:.1f}{error}%"


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
                    "seconds": pd.to_numeric(table["s"], errors="coerce"),
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


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and the packages that results depend on, and the git commit where there is one."""
    import platform
    import subprocess
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        commit = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=True
        )
        found["git commit"] = commit.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # not a checkout, or no git
    return found


# --- images


def thumbnail(row, text: str) -> dict:
    """A small picture for the page: ``src`` (data URI; None for an image that cannot be read) and ``alt``."""
    try:
        picture = images.load(row)
    except (OSError, ValueError):
        return {"src": None, "alt": f"{text} (cannot be read)", "small": False}
    small = max(picture.size) <= LOSSLESS
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True) if small else picture.save(buffer, "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"src": f"data:image/{kind};base64,{data}", "alt": text, "small": small}


def _gallery(folder: Path, classes: pd.DataFrame, summaries: Sequence[Mapping], ratio: str) -> dict:
    """Columns: the first classes; rows: the training set and each method; cells: their first images."""
    shown = [_class(row) for row in _rows(classes) if not row["excluded"]][:CLASSES]
    captions = _captions(folder)
    rows = [("Training images", "", folder / "dataset" / "train.parquet")]
    rows += [
        (row["title"], row["family"], folder / "augmentation" / row["method"] / ratio / "split-1.parquet")
        for row in summaries
    ]
    made = []
    for title, family, path in rows:
        if not path.exists():
            continue
        groups = dict(list(images.read(path).groupby("class", sort=False)))
        cells = []
        for about in shown:
            members = groups.get(about["class"])
            cells.append([] if members is None else _cell(members, title, about["name"], captions))
        made.append({"title": title, "family": family, "cells": cells})
    return {"classes": shown, "rows": made}


def _cell(members: pd.DataFrame, title: str, name: str, captions: Mapping) -> list[dict]:
    found = []
    for i, row in enumerate(members.head(PER_CLASS).itertuples(), 1):
        if pd.notna(row.prompt):
            about = f", prompt: {row.prompt}"
        elif row.url in captions:
            about = f", caption: {captions[row.url]}"
        else:
            about = ""
        found.append(thumbnail(row, f"{title}, {name}, image {i}{about}"))
    return found


def _captions(folder: Path) -> dict[str, str]:
    path = folder / "retrieval" / "candidates.parquet"
    if not path.exists():
        return {}
    table = pd.read_parquet(path, columns=["url", "caption"]).dropna()
    return dict(zip(table["url"], table["caption"], strict=True))


# --- stages


def _funnel(folder: Path, classes: pd.DataFrame) -> dict | None:
    """How many neighbours of each class met which fate; None without retrieval."""
    path = folder / "retrieval" / "candidates.parquet"
    if not path.exists():
        return None
    counts = pd.read_parquet(path, columns=["class", "fate"]).groupby(["class", "fate"]).size()
    counts = counts.unstack(fill_value=0)
    fates = [fate for fate in FATES if fate in counts] + sorted(set(counts) - set(FATES))
    rows = []
    for row in _rows(classes):
        found = counts.loc[row["class"]] if row["class"] in counts.index else {}
        rows.append(_class(row) | {"counts": [int(found.get(fate, 0)) for fate in fates]})
    total = [sum(column) for column in zip(*(row["counts"] for row in rows), strict=True)]
    return {"fates": fates, "rows": rows, "total": total, "source": str(path)}


def _audit(folder: Path, summary: Mapping) -> dict | None:
    """The audit of one method with its closest candidate pairs; None for a method without one."""
    place = folder / "audit" / summary["method"]
    if not (place / "summary.json").exists():
        return None
    table = pd.read_parquet(place / "candidates.parquet")
    closest = table.sort_values("distance", kind="stable").head(PAIRS)
    pairs = []
    for row in closest.itertuples():
        both = {}
        for side in ("added", "reference"):
            where = pd.Series(
                {
                    "image_id": getattr(row, f"{side}_id"),
                    "path": getattr(row, f"{side}_path"),
                    "offset": getattr(row, f"{side}_offset"),
                    "length": getattr(row, f"{side}_length"),
                }
            )
            text = "added" if side == "added" else f"{row.reference_set} image"
            both[side] = thumbnail(where, f"{text} {where.image_id}")
        pairs.append(both | {"distance": int(row.distance), "set": row.reference_set})
    return files.read_json(place / "summary.json") | {
        "method": summary["method"],
        "title": summary["title"],
        "family": summary["family"],
        "pairs": pairs,
        "candidates": len(table),
    }


def _curves(folder: Path, summary: Mapping) -> dict | None:
    """Validation accuracies (percent) per epoch of all runs of a method; None without a history."""
    place = folder / "classifier" / summary["method"] / f"x{summary['ratio']:g}"
    paths = sorted(place.glob("run-*/history.csv"), key=lambda path: int(path.parent.name.split("-")[1]))
    runs = [pd.read_csv(path) for path in paths]
    runs = [{"epoch": list(run["epoch"]), "accuracy": list(run["validation_accuracy"])} for run in runs]
    if not runs:
        return None
    return {"title": summary["title"], "family": summary["family"], "runs": runs}


# --- figures


def _figure(draw, size: tuple[float, float], name: str, themed: bool) -> str:
    """SVG text of a figure of ``size`` inches that ``draw(figure)`` fills; the same bytes for the same data.

    ``themed`` figures are for the page: without prologue, their ids prefixed by ``name`` and their ink
    and grid in the page's colours.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "augbench",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "grid.color": GRID,
        "grid.linewidth": 0.6,
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    if not themed:
        return text.replace(INK, "#222222").replace(GRID, "#dddddd")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = text.replace(INK, "currentColor").replace(GRID, "var(--line)")
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"<svg [^>]*?viewBox=(\"[^\"]*\")[^>]*>", r'<svg viewBox=\1 aria-hidden="true">', text, count=1)


def _short(name: str) -> str:
    return name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"


def accuracy_rows(study: Mapping) -> list[dict]:
    """The data of the accuracy figure: methods grouped by family, in order of first appearance."""
    order = list(dict.fromkeys(row["family"] for row in study["summaries"]))
    rows = sorted(study["summaries"], key=lambda row: order.index(row["family"]))
    keys = ("method", "title", "family", "start", "accuracy_mean", "accuracy_se")
    return [{key: row[key] for key in keys} for row in rows]


def accuracy_figure(study: Mapping, name: str = "accuracy", themed: bool = False) -> str:
    """Figure 1A: accuracy (percent) with standard errors, as SVG; lines mark the baselines."""
    rows = accuracy_rows(study)
    low = min(row["accuracy_mean"] for row in rows)
    high = max(row["accuracy_mean"] + (row["accuracy_se"] or 0) for row in rows)
    start = max(0.0, 5 * math.floor((low - 0.35 * (high - low) - 0.5) / 5))

    marks = {"none": "dashed", "more_real": "dotted"}

    def draw(figure):
        axes = figure.subplots()
        for row in rows:
            if row["start"] in marks:  # across the bars only: between them are names
                bands = [y - 0.21 for y in range(len(rows))], [y + 0.21 for y in range(len(rows))]
                axes.vlines(
                    [row["accuracy_mean"]] * len(rows), *bands, color=INK, linestyles=marks[row["start"]], linewidth=1
                )
        for y, row in enumerate(rows):
            colour = FAMILY_COLOURS.get(row["family"], OTHER_COLOUR)
            axes.barh(y, row["accuracy_mean"] - start, left=start, height=0.42, color=colour)
            error = row["accuracy_se"] or 0
            if error:
                axes.errorbar(row["accuracy_mean"], y, xerr=error, color=INK, capsize=2.5, elinewidth=1, capthick=1)
            names = [_short(row["title"])] + [row["family"]] * (row["title"].lower() != row["family"])
            label = " · ".join(names)
            axes.annotate(label, (start, y - 0.24), (0, 1), textcoords="offset points", va="bottom")
            value = (row["accuracy_mean"] + error, y)
            axes.annotate(_accuracy(row)[:-1], value, (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_ylim(len(rows) - 0.6, -0.75)
        axes.set_xlim(start, high + 0.17 * (high - start))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("top-1 accuracy on the test set (%)")

    return _figure(draw, (4.6, 0.62 + 0.43 * len(rows)), name, themed)


def funnel_figure(funnel: Mapping, name: str) -> str:
    """Fates of the neighbours of the first classes as stacked bars (number of neighbours), as SVG."""
    rows = funnel["rows"][:FUNNEL_CLASSES]

    def draw(figure):
        axes = figure.subplots()
        left = [0] * len(rows)
        for k, fate in enumerate(funnel["fates"]):
            widths = [row["counts"][k] for row in rows]
            colour = FATES.get(fate, OTHER_COLOUR)
            axes.barh(range(len(rows)), widths, left=left, height=0.7, color=colour, label=fate)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(rows)), [_short(row["name"])[:18] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("neighbours")
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8, handlelength=1, columnspacing=1)

    return _figure(draw, (4.6, 0.95 + 0.24 * len(rows)), name, True)


def curve_figure(curves: Mapping, limits: tuple[float, float], name: str) -> str:
    """Validation accuracy (percent) over the epochs, a line per run, as SVG."""

    def draw(figure):
        axes = figure.subplots()
        colour = FAMILY_COLOURS.get(curves["family"], OTHER_COLOUR)
        for run in curves["runs"]:
            axes.plot(run["epoch"], run["accuracy"], color=colour, linewidth=0.9, alpha=0.8)
        axes.set_ylim(*limits)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy (%)", fontsize=8)

    return _figure(draw, (2.9, 1.9), name, True)


def write_figures(study: Mapping, folder: str | Path) -> None:
    """Write ``folder``/figures/accuracy.svg and .csv, its data: accuracies and standard errors in percent."""
    place = Path(folder) / "figures"
    files.write_text(place / "accuracy.svg", accuracy_figure(study))
    columns = ["method", "family", "accuracy_mean", "accuracy_se"]
    files.write_csv(place / "accuracy.csv", pd.DataFrame(accuracy_rows(study))[columns])


# --- page


def write(path: str | Path, studies: Sequence[Mapping]) -> None:
    """Write the page over ``studies`` (each from :func:`gather`): one file that needs nothing else.

    All text from data is escaped; pictures are inside the page as data URIs.
    """
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "duration": _duration}
    shown = []
    for number, study in enumerate(studies, 1):
        figures = {key: _markup(svg) for key, svg in _figures(study, f"s{number}").items()}
        text = yaml.safe_dump(study["settings"], sort_keys=False, allow_unicode=True)
        shown.append(dict(study) | {"id": f"s{number}", "figures": figures, "yaml": text})
    page = environment.get_template("report.html.j2").render(
        studies=shown, funnel_classes=FUNNEL_CLASSES, colours=FAMILY_COLOURS, other_colour=OTHER_COLOUR
    )
    files.write_text(path, page)


def _figures(study: Mapping, name: str) -> dict[str, str]:
    made = {"accuracy": accuracy_figure(study, f"{name}-accuracy", themed=True)}
    if study["funnel"]:
        made["funnel"] = funnel_figure(study["funnel"], f"{name}-funnel")
    values = [value for curves in study["curves"] for run in curves["runs"] for value in run["accuracy"]]
    if values:
        limits = max(0.0, min(values) - 3), min(100.0, max(values)) + 3
        for number, curves in enumerate(study["curves"]):
            made[f"curve-{number}"] = curve_figure(curves, limits, f"{name}-curve-{number}")
    return made


def _markup(svg: str):
    """Figures are our own XML, in which matplotlib has escaped every text from data."""
    from markupsafe import Markup

    return Markup(svg)


def _number(value: float | None, places: int = 1) -> str:
    """A number with so many decimal places; a dash where there is none."""
    return "–" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:,.{places}f}"


def _duration(seconds: float) -> str:
    """Seconds as text: 12.3 s, 4 min 05 s or 3 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
