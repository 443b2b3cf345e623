"""What became of the links that retrieval asked for, host by host: how much of a pool can still be had."""

import urllib.parse

import numpy as np
import pandas as pd

from augbench.retrieval.guard import spelt

ANSWERED = "answered"
FAILURES = ("dead", "timeout", "refused", "opted out", "too large")  # fates of links whose bytes did not come
BYTES = "bytes"  # of what answered
COLUMNS = ["host", "asked", ANSWERED, *FAILURES, BYTES]


class Hosts:
    """Counts links, each once, however many classes it is a neighbour of."""

    def __init__(self):
        self.counted = np.zeros(0, bool)  # of links, by their number
        self.counts: dict[tuple[str, str], int] = {}  # of links by host and outcome; and of bytes

    def add(self, rows: pd.DataFrame) -> None:
        """Neighbours with url, fate, sha256 and length (null where no bytes came) and link: a number for each address
        that was asked for, -1 where none was."""
        rows = rows[rows["link"] >= 0].drop_duplicates("link")
        links = rows["link"].to_numpy(int)
        if len(links) and links.max() >= len(self.counted):
            self.counted = np.pad(self.counted, (0, 2 * int(links.max()) + 1 - len(self.counted)))
        fresh = rows[~self.counted[links]]
        self.counted[links] = True
        outcomes = fresh["fate"].where(fresh["sha256"].isna(), ANSWERED)
        sizes = fresh["length"].where(fresh["sha256"].notna(), 0)
        for url, outcome, size in zip(fresh["url"], outcomes, sizes, strict=True):
            host = host_of(url)
            for column, count in ((outcome, 1), (BYTES, int(size))):
                self.counts[host, column] = self.counts.get((host, column), 0) + count

    def table(self) -> pd.DataFrame:
        """COLUMNS, the hosts with the most links first."""
        counts = pd.Series(self.counts, dtype=int)
        if counts.empty:
            return pd.DataFrame(columns=COLUMNS)
        counts = counts.unstack(fill_value=0).reindex(columns=COLUMNS[2:], fill_value=0)
        counts.insert(0, "asked", counts.drop(columns=BYTES).sum(axis=1))
        counts = counts.rename_axis("host").reset_index()
        return counts.sort_values(["asked", "host"], ascending=[False, True], ignore_index=True)[COLUMNS]


def host_of(url: str) -> str:
    """The host of an address; empty for what has none."""
    try:
        return urllib.parse.urlsplit(spelt(url)).hostname or ""
    except ValueError:
        return ""
