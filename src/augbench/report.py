"""Joins what the studies measured into one page that can be read anywhere, without a network."""

import base64
import functools
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import compute, files, images
from augbench.figures import (
    FAMILY_COLOURS,
    FATES,
    FUNNEL_CLASSES,
    OTHER_COLOUR,
    accuracy,
    accuracy_figure,
    curve_figure,
    funnel_figure,
    loss_figure,
)

CLASSES = 6  # classes in a gallery
PER_CLASS = 4  # images per class and method in a gallery
EXAMPLES = 4  # classes of which a candidate shows an image
PROMPTS = 80  # prompts of a method of which an image is shown
CLOSEST = 10  # classes that retrieval could fill only just, or not
PAIRS = 10  # closest candidate pairs per method
THUMBNAIL = 96  # pixels, longer side: with the limits above it bounds the size of the page
LOSSLESS = 48  # pixels, longer side: images up to this size stay as they are
CONFIDENCE = 0.95
PAPER_COMPUTE = Path("resources/paper_compute.csv")

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
    for summary in summaries:
        summary["start"] = methods[summary["method"]].get("start", summary["method"])
    ratio = f"x{max(summary['ratio'] for summary in summaries):g}"  # 0 for what adds nothing
    classes = pd.read_csv(folder / "dataset" / "classes.csv", dtype=str, keep_default_na=False)
    shown = [_class(row) for row in _rows(classes) if not row["excluded"]][:CLASSES]
    table = pd.read_csv(folder / "tables" / "table1.csv", keep_default_na=False, na_values=[""])
    return {
        "study": study,
        "folder": str(folder),
        "ratio": ratio,
        "seed": settings.get("seed"),
        "settings": json.loads(json.dumps(settings, default=str)),
        "summaries": summaries,
        "answer": answer(summaries),
        "table1": sorted(
            table.astype(object).where(table.notna(), None).to_dict("records"),
            key=lambda row: families.index(row["family"]),
        ),
        "classes": _classes(classes),
        "excluded": [_class(row) | {"why": row["excluded"]} for row in _rows(classes) if row["excluded"]],
        "figure1a": best_of_families(summaries),
        "gap": (gap := _gap(folder, summaries)),
        "judge": methods[gap[0]["classifier"]]["title"] if gap else None,
        "finetuned": [
            found for summary in summaries if (found := _finetuned(folder, summary, shown, generated, methods))
        ],
        "templates": [
            found for summary in summaries if (found := _templates(folder, summary, shown, generated, methods))
        ],
        "clusters": [
            found for summary in summaries if (found := _clusters(folder, summary, shown, generated, methods))
        ],
        "gallery": _gallery(folder, shown, summaries, ratio),
        "funnels": [found for summary in summaries if (found := _funnel(folder, summary, classes))],
        "audit": [found for summary in summaries if (found := _audit(folder, summary))],
        "curves": [found for summary in summaries if (found := _curves(folder, summary))],
        "stages": stage_times(folder).to_dict("records"),
        "compute": compute.gather(folder, methods, pd.read_csv(PAPER_COMPUTE)),
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
    """The study's answer to "Retrieve or generate?": a ``verdict`` in a word or two, a ``sentence``, and the
    ``winner``, the method that is separated from all others that add images; None where none is."""
    added = sorted((row for row in summaries if row["family"] != "baseline"), key=lambda row: -row["accuracy_mean"])
    floor = next((row for row in summaries if row["start"] == "none"), None)
    if not added:
        return {"verdict": "", "sentence": "No method that adds images was part of this study.", "winner": None}
    best, rivals = added[0], added[1:]
    sentence = f"{best['title']} is the best of the methods that add images: {accuracy(best)}"
    if rivals:
        second = f"{rivals[0]['title']} ({accuracy(rivals[0])})"
        sentence += (
            f", clearly ahead of {second}"
            if separated(best, rivals[0])
            else f", but this does not separate it from the second, {second}: the 95% intervals overlap"
        )
    baselines = [f"{row['title']} {accuracy(row)}" for row in summaries if row["family"] == "baseline"]
    if baselines:
        sentence += f"; baselines: {', '.join(baselines)}"
    clear = all(separated(best, rival) for rival in rivals)
    winner = best["method"] if clear else None
    return {"verdict": _verdict(best, rivals, floor), "sentence": sentence + ".", "winner": winner}


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


def _gallery(folder: Path, shown: Sequence[Mapping], summaries: Sequence[Mapping], ratio: str) -> dict:
    """Columns: the first classes; rows: the training set and each method; cells: their first images."""
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


def _gap(folder: Path, summaries: Sequence[Mapping]) -> list[dict]:
    """Rows of the domain gap table, in the order of the methods."""
    path = folder / "tables" / "domain_gap.csv"
    if not path.exists():
        return []
    rows = pd.read_csv(path).set_index("method").to_dict("index")
    return [
        rows[row["method"]] | {"title": row["title"], "family": row["family"]}
        for row in summaries
        if row["method"] in rows
    ]


def _finetuned(
    folder: Path, summary: Mapping, shown: Sequence[Mapping], generated: Mapping, methods: Mapping
) -> dict | None:
    """The candidates of a fine-tuned method, why one was chosen, and images of each; None for another method."""
    if not methods[summary["method"]].get("trained"):
        return None
    selection = files.read_json(folder / "selection" / f"{summary['method']}.json")
    runs = [folder / "finetune" / summary["method"] / rate for rate in selection["rates"]]
    histories = {run.name: pd.read_csv(run / "history.csv") for run in runs}
    made = images.read(*generated[summary["method"]])
    candidates = []
    for row in selection["screened"]:
        cells = []
        of = made[made["candidate"] == row["candidate"]]
        for about in shown[:EXAMPLES]:
            members = of[of["class"] == about["class"]].head(1).itertuples()
            cells += [thumbnail(member, f"{about['name']}, epoch {row['epoch']}") for member in members]
        candidates.append(row | {"pictures": cells, "chosen": row["candidate"] == selection["candidate"]})
    return {
        "method": summary["method"],
        "title": summary["title"],
        "family": summary["family"],
        "rate": selection["candidate"].split("_", 1)[0],
        "rates": selection["rates"],
        "histories": {name: history.to_dict("list") for name, history in histories.items()},
        "chosen": selection,
        "candidates": candidates,
        "classes": [about["name"] for about in shown[:EXAMPLES]],
    }


def _made(folder: Path, method: str, generated: Mapping, methods: Mapping) -> pd.DataFrame:
    """The images of a generating method, without those of candidates that were not chosen."""
    table = images.read(*generated[method])
    if not methods[method].get("trained"):
        return table
    return table[table["candidate"] == files.read_json(folder / "selection" / f"{method}.json")["candidate"]]


def _templates(
    folder: Path, summary: Mapping, shown: Sequence[Mapping], generated: Mapping, methods: Mapping
) -> dict | None:
    """One image for each prompt of the first class (Figures 11 and 12); None for methods with a single prompt."""
    row = methods[summary["method"]]
    if row.get("start") != "noise" or "conditioning" in row.get("trained", []):
        return None
    table = _made(folder, summary["method"], generated, methods)
    table = table[table["class"] == shown[0]["class"]].drop_duplicates("prompt").sort_values("prompt")
    if len(table) < 2:
        return None
    return {
        "title": summary["title"],
        "class": shown[0]["name"],
        "source": f"{folder}/images/{summary['method']}",
        "pictures": [
            {"prompt": member.prompt} | thumbnail(member, member.prompt) for member in table.head(PROMPTS).itertuples()
        ],
    }


def _clusters(
    folder: Path, summary: Mapping, shown: Sequence[Mapping], generated: Mapping, methods: Mapping
) -> dict | None:
    """Training images of each cluster of the first class beside what its conditioning generates (Figure 10)."""
    k = methods[summary["method"]].get("clusters", 1)
    if k < 2:
        return None
    members = pd.read_parquet(folder / "finetune" / "clusters.parquet")
    members = members[(members["k"] == k) & (members["split"] == "train") & (members["class"] == shown[0]["class"])]
    train = images.read(folder / "dataset" / "train.parquet").set_index("image_id", drop=False)
    made = _made(folder, summary["method"], generated, methods)
    made = made[made["class"] == shown[0]["class"]]
    rows = []
    for cluster, group in members.groupby("cluster"):
        text = f"(cluster {cluster + 1} of "
        real = train.loc[group["image_id"].head(PER_CLASS)].itertuples(index=False)
        generated = made[made["prompt"].str.contains(text, regex=False)].head(PER_CLASS).itertuples()
        rows.append(
            {
                "size": len(group),
                "real": [thumbnail(row, f"training image of cluster {cluster + 1}") for row in real],
                "generated": [thumbnail(row, f"generated for cluster {cluster + 1}") for row in generated],
            }
        )
    return {"title": summary["title"], "class": shown[0]["name"], "rows": rows}


def _captions(folder: Path) -> dict[str, str]:
    tables = [
        pd.read_parquet(path, columns=["url", "caption"]).dropna() for path in folder.glob("retrieval/*/ledger.parquet")
    ]
    return {url: caption for table in tables for url, caption in zip(table["url"], table["caption"], strict=True)}


# --- stages


def _funnel(folder: Path, summary: Mapping, classes: pd.DataFrame) -> dict | None:
    """How many neighbours of each class met which fate, and the classes that were nearly not, or not, filled."""
    path = folder / "retrieval" / summary["method"] / "funnel.csv"
    if not path.exists():
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


def best_of_families(summaries: Sequence[Mapping]) -> list[dict]:
    """The bars of Figure 1A: the target data only, and of each family that adds images its best method."""
    floor = [row for row in summaries if row["start"] == "none"]
    families = dict.fromkeys(row["family"] for row in summaries if row["family"] != "baseline")
    best = [
        max((row for row in summaries if row["family"] == family), key=lambda row: row["accuracy_mean"])
        for family in families
    ]
    return [_bar(row) for row in floor + best]


def _bar(summary: Mapping) -> dict:
    return {key: summary[key] for key in ("method", "title", "family", "start", "accuracy_mean", "accuracy_se")}


def write_figures(study: Mapping, folder: str | Path) -> None:
    """Write ``folder``/figures/{figure1a,accuracy}.svg and .csv, their data: accuracies and errors in percent."""
    place = Path(folder) / "figures"
    for name, rows in {"figure1a": study["figure1a"], "accuracy": study["summaries"]}.items():
        files.write_text(place / f"{name}.svg", accuracy_figure(rows))
        columns = ["method", "family", "accuracy_mean", "accuracy_se"]
        files.write_csv(place / f"{name}.csv", pd.DataFrame(rows)[columns])


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
    made = {
        "accuracy": accuracy_figure(study["summaries"], f"{name}-accuracy", themed=True),
        "figure1a": accuracy_figure(study["figure1a"], f"{name}-figure1a", themed=True),
    }
    for number, item in enumerate(study["finetuned"]):
        colour = FAMILY_COLOURS.get(item["family"], OTHER_COLOUR)
        made[f"loss-{number}"] = loss_figure(
            item["histories"], item["rate"], item["chosen"]["epoch"], colour, f"{name}-loss-{number}"
        )
    for k, funnel in enumerate(study["funnels"]):
        made[f"funnel-{funnel['method']}"] = funnel_figure(funnel, f"{name}-funnel-{k}")
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
