"""The results of a study that its report shows: each input that the rule declares, read once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.parquet import ParquetFile

from augbench import images
from augbench.core import benchmarks, files
from augbench.report import comparison, evaluation, groups, set_metrics
from augbench.report.plan import Plan
from augbench.study import classes
from augbench.study.scores import SCORES

CLASSES = 6  # in a gallery
PER_CLASS = 4  # images that are shown of a class and method


@dataclass(frozen=True)
class Files:
    """Paths of what the report reads; by method where there is a file for each. Which there are follows from the
    configuration: None or an empty mapping where it asks for none."""

    classes: str
    train: str
    validation: str
    table1: str
    differences: str
    scaling: str
    groups: str
    per_class: str
    confusions: str
    summaries: dict[str, str]
    histories: dict[str, list[str]]  # of the classifiers, at the main ratio
    paper_results: str
    paper_compute: str
    domain_gap: str | None = None
    set_metrics: str | None = None
    evaluation: str | None = None
    subsamples: str | None = None  # accuracy over several draws of the target
    classifiers: str | None = None
    zero_shot: str | None = None  # metrics of the study's CLIP
    clusters: str | None = None
    added: dict[str, str] = field(default_factory=dict)  # the first set that a method adds, at the main ratio
    audits: dict[str, str] = field(default_factory=dict)
    candidates: dict[str, str] = field(default_factory=dict)
    reviews: dict[str, str] = field(default_factory=dict)  # pages, to which the report links
    verdicts: dict[str, str] = field(default_factory=dict)  # of those methods whose candidates people have judged
    generated: dict[str, list[str]] = field(default_factory=dict)
    selections: dict[str, str] = field(default_factory=dict)
    finetunings: dict[str, list[str]] = field(default_factory=dict)  # losses at each learning rate
    external: dict[str, str] = field(default_factory=dict)  # all images that were made elsewhere
    ledgers: dict[str, str] = field(default_factory=dict)
    funnels: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)  # what became of the links that were asked for
    pool_ledgers: list[str] = field(default_factory=list)  # the same of a pool that is downloaded as a whole
    scores: dict[str, str] = field(default_factory=dict)  # of the images that a method could add at the main ratio
    filtered: dict[str, str] = field(default_factory=dict)  # how many of them were left out


class StudyResults:
    """What a study found, as tables and plain data.

    ``folder`` is results/STUDY. Reading a file that is missing raises BadInput with its path: which files there must be
    follows from the configuration, so a missing one is never an empty section.
    """

    def __init__(self, plan: Plan, paths: Files, folder: str | Path, jobs: list[benchmarks.Job]):
        self.plan, self.files, self.folder = plan, paths, Path(folder)
        self.measurements = benchmarks.measure(jobs)
        self._gathered: dict[Callable, Any] = {}
        self.generated = cache(self._generated)
        self.selection = cache(self._selection)
        self.audit = cache(lambda method: _json(self.files.audits[method]))
        self.external = cache(lambda method: images.read(_present(self.files.external[method])))
        self.candidates = cache(lambda method: _parquet(self.files.candidates[method]))

    def once(self, gather: Callable[["StudyResults"], Any]) -> Any:
        """What ``gather`` computes from these results: computed once, though several exhibits show it."""
        if gather not in self._gathered:
            self._gathered[gather] = gather(self)
        return self._gathered[gather]

    @cached_property
    def summaries(self) -> list[dict]:
        """One per method, grouped by family; with the family's colour."""
        rows = {key: _json(self.files.summaries[key]) for key in self.plan.methods}
        return [row | self.plan.named(key) for key, row in rows.items()]

    @cached_property
    def summary(self) -> dict[str, dict]:
        return {row["method"]: row for row in self.summaries}

    def best(self, methods: list[str]) -> str | None:
        """Of these methods the one with the highest accuracy; None without any."""
        best = comparison.best([row for row in self.summaries if row["method"] in methods])
        return best["method"] if best else None

    @cached_property
    def answer(self) -> dict:
        """The study's answer to its question: see :func:`augbench.report.comparison.answer`."""
        return comparison.answer(self.summaries, self.differences)

    # --- classes and their images

    @cached_property
    def class_info(self) -> pd.DataFrame:
        return classes.read(_present(self.files.classes))

    @cached_property
    def kept(self) -> list[dict]:
        """The classes that take part: class (key), name, train (training images), wanted (those that ratio 1 adds)."""
        return [named_class(row) for row in self.class_info.to_dict("records") if not row["excluded"]]

    @cached_property
    def names(self) -> dict[str, str]:
        return {row["class"]: row["name"] for row in self.kept}

    @cached_property
    def train(self) -> pd.DataFrame:
        return images.read_columns(_present(self.files.train), columns=[*images.REFERENCE, "prompt", "url"])

    @cached_property
    def validation_count(self) -> int:
        return images.count(_present(self.files.validation))

    @cached_property
    def train_by_class(self) -> dict[str, pd.DataFrame]:
        return _by_class(self.train)

    @cached_property
    def added_by_class(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Method -> class -> the first PER_CLASS images of the first set that the method adds at the main ratio."""
        tables = {key: _first_of_each_class(path) for key, path in self.files.added.items()}
        return {key: _by_class(table) for key, table in tables.items()}

    @property
    def shown(self) -> list[dict]:
        """The classes of which galleries show pictures: the first ones."""
        return self.kept[:CLASSES]

    def _generated(self, method: str) -> pd.DataFrame:
        """The images of the :attr:`shown` classes that a method generated for the main ratio, of all its candidates."""
        wanted = [row["class"] for row in self.shown]
        tables = (images.read(_present(path)) for path in self.files.generated[method])
        return pd.concat([table[table["class"].isin(wanted)] for table in tables], ignore_index=True)

    def count_generated(self, method: str) -> int:
        """All images that a method generated for the main ratio, also those of candidates that were not selected, of
        which few are kept."""
        tables = [ParquetFile(_present(path)) for path in self.files.generated[method]]
        if method not in self.files.selections:
            return sum(table.metadata.num_rows for table in tables)
        selection = self.selection(method)
        candidates = [table.read(["candidate"])["candidate"].to_pylist() for table in tables]
        chosen = sum(names.count(selection["candidate"]) for names in candidates)
        compared = sum(classes.added(row["wanted"], self.plan.settings.main_ratio) for row in self.kept)
        return chosen + (len(selection["screened"]) - 1) * compared

    def generated_and_kept(self, method: str) -> pd.DataFrame:
        """:meth:`generated` without the images of candidates that were not selected."""
        table = self.generated(method)
        if method not in self.files.selections:
            return table
        return table[table["candidate"] == self.selection(method)["candidate"]]

    @cached_property
    def captions(self) -> dict[str, str]:
        """URL -> caption of the retrieved images in :attr:`added_by_class`."""
        tables = [table for by_class in self.added_by_class.values() for table in by_class.values()]
        urls = {url for table in tables for url in table["url"].dropna()}
        wanted = ds.field("url").isin(pa.array(urls, pa.string()))
        paths = map(_present, self.files.ledgers.values())
        tables = [pd.read_parquet(path, columns=["url", "caption"], filters=wanted).dropna() for path in paths]
        return {url: text for table in tables for url, text in zip(table["url"], table["caption"], strict=True)}

    # --- numbers

    @cached_property
    def table1(self) -> pd.DataFrame:
        return _csv(self.files.table1)

    @cached_property
    def differences(self) -> pd.DataFrame:
        return _csv(self.files.differences)

    @cached_property
    def groups(self) -> pd.DataFrame:
        return _csv(self.files.groups)

    @cached_property
    def scaling(self) -> pd.DataFrame:
        return _csv(self.files.scaling)

    @cached_property
    def per_class(self) -> pd.DataFrame:
        return _csv(self.files.per_class)

    @cached_property
    def confusions(self) -> pd.DataFrame:
        return _csv(self.files.confusions)

    @cached_property
    def domain_gap(self) -> pd.DataFrame:
        return _csv(self.files.domain_gap)

    @cached_property
    def set_metrics(self) -> pd.DataFrame:
        return _csv(self.files.set_metrics)

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        return _csv(self.files.evaluation)

    @cached_property
    def subsamples(self) -> pd.DataFrame:
        return _csv(self.files.subsamples)

    @cached_property
    def classifiers(self) -> pd.DataFrame:
        return _csv(self.files.classifiers)

    @cached_property
    def zero_shot(self) -> dict | None:
        """What CLIP recognises by the names of the classes: accuracy (percent), model, prompts and numbers of classes
        and test images; None where the study does not ask for it."""
        return _json(self.files.zero_shot) if self.files.zero_shot else None

    @cached_property
    def clusters(self) -> pd.DataFrame:
        return _parquet(self.files.clusters)

    @cached_property
    def paper_results(self) -> pd.DataFrame:
        return pd.read_csv(_present(self.files.paper_results))

    @cached_property
    def paper_compute(self) -> pd.DataFrame:
        return pd.read_csv(_present(self.files.paper_compute))

    def histories(self, method: str) -> list[pd.DataFrame]:
        """Epoch by epoch, the training of each of a method's classifiers."""
        return [pd.read_csv(_present(path)) for path in self.files.histories[method]]

    def _selection(self, method: str) -> dict:
        """The candidates of a fine-tuned method, and which was selected; ``rates`` in the order of its fine-tunings."""
        return _json(self.files.selections[method])

    def finetunings(self, method: str) -> dict[str, pd.DataFrame]:
        """Learning rate (lr-RATE) -> losses epoch by epoch."""
        losses = zip(self.selection(method)["rates"], self.files.finetunings[method], strict=True)
        return {rate: pd.read_csv(_present(path)) for rate, path in losses}

    def scores(self, method: str) -> pd.DataFrame:
        """The scores of the images that a method could add, and their classes."""
        return pd.read_parquet(_present(self.files.scores[method]), columns=["class", *SCORES])

    def filtered(self, method: str) -> pd.DataFrame:
        """How many images of each class a method's filter left out, see ``augbench.dataset.filtering``."""
        return _csv(self.files.filtered[method])

    def funnel(self, method: str) -> pd.DataFrame:
        """How many of each class's neighbours met which fate; keyed by class."""
        return pd.read_csv(_present(self.files.funnels[method]), dtype={"class": str}, keep_default_na=False).set_index(
            "class"
        )

    def links(self, method: str) -> dict:
        """How many links were asked for, on how many hosts, how many answered, and with how many bytes."""
        table = pd.read_csv(_present(self.files.hosts[method]), usecols=["asked", "answered", "bytes"])
        return {"hosts": len(table)} | {name: int(table[name].sum()) for name in table}

    @cached_property
    def pool_links(self) -> dict:
        """The same of a pool that is downloaded as a whole, but for the hosts."""
        parts = [pd.read_parquet(_present(path), columns=["bytes"])["bytes"] for path in self.files.pool_ledgers]
        sizes = pd.concat(parts) if parts else pd.Series(dtype="int64")
        return {"asked": len(sizes), "answered": int((sizes > 0).sum()), "bytes": int(sizes.sum())}


def named_class(row) -> dict:
    """A class of the class table under the name that is shown: the first lemma, else the key."""
    name = str(row["lemmas"] or row["class"]).split(",")[0].strip()
    return {"class": row["class"], "name": name, "train": int(row["train"]), "wanted": int(row["wanted"])}


def _by_class(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(key): rows for key, rows in table.groupby("class")}


def records(table: pd.DataFrame) -> list[dict]:
    """Rows as mappings, None where a value is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


TEXTS = dict.fromkeys(("method", "other", "class", "predicted", "set", "worst_class", "classifier", "model"), str)
TEXTS |= dict.fromkeys(("weights", "revision", "sha256", "licence"), str)


def _csv(path: str) -> pd.DataFrame:
    """A table whose methods and classes are text, also where they look like numbers or like missing values."""
    return pd.read_csv(_present(path), dtype=TEXTS, keep_default_na=False, na_values=_EMPTY_NUMBERS)


_NUMBERS = ("accuracy_se", "overlap", "low", "high", "t", "df", "p", "p_holm", "paper_accuracy", "paper_se")
_NUMBERS += set_metrics.NAMES + tuple(f"{name}_se" for name in evaluation.MEASURES)
_NUMBERS += tuple(f"{name}_{part}" for name in groups.MEANS for part in ("mean", "se"))
_NUMBERS += ("difference", "sd_draws", "sd_runs", "weights", "revision", "sha256", "licence")  # texts, too
_EMPTY_NUMBERS = {name: [""] for name in _NUMBERS}


def _parquet(path: str) -> pd.DataFrame:
    return pd.read_parquet(_present(path))


def _first_of_each_class(path: str) -> pd.DataFrame:
    """The first PER_CLASS rows of each class of an image table."""
    keys = images.read_columns(_present(path), columns=["class"])["class"]
    return images.read_rows([path], np.flatnonzero(keys.groupby(keys).cumcount() < PER_CLASS))


def _json(path: str):
    return files.read_json(_present(path))


def _present(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise files.BadInput(f"the report needs {path}, which is missing; build it again with `snakemake {path}`")
    return Path(path)
