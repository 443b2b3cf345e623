"""A retrieval into one folder, with its caches beside its results."""

import functools
from pathlib import Path

import pandas as pd

from augbench.retrieval import download, metadata
from augbench.retrieval.inspection import Inspection
from augbench.retrieval.retrieve import Outputs, retrieve
from augbench.retrieval.search import CachedSearch

NAMES = ("ledger.parquet", "images.tar", "images.parquet", "funnel.csv", "hosts.csv")


def metadata_of(folder, ids) -> pd.DataFrame:
    """The metadata of some rows of an index, in their order."""
    neighbours = pd.DataFrame({"id": ids, "similarity": 0.5, "duplicate_of": None})
    (table,) = metadata.reader(folder, metadata.WANTED).complete([neighbours])
    return table


def retrieve_into(
    folder, wanted, source, checker, settings, *, proxy=None, diversity=0.0, score=None, main=None, licences=None
) -> Outputs:
    """``settings`` is the section ``retrieval``; ``proxy`` the address of a web in a box."""
    folder = Path(folder)
    outputs = Outputs(*(folder / name for name in NAMES))
    retrieve(
        wanted,
        CachedSearch(source, folder / "neighbours", settings.duplicate_threshold, diversity),
        functools.partial(download.fetch_in_turn, work=folder / "downloads", settings=settings, proxy=proxy),
        Inspection(checker, settings, score),
        outputs,
        settings,
        main=main,
        licences=licences,
    )
    return outputs
