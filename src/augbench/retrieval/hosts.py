"""What became of the links that retrieval asked for, host by host: how much of a pool can still be had."""

import urllib.parse

import numpy as np
import pandas as pd

from augbench.retrieval.guard import spelt

ANSWERED = "answered"
FAILURES = ("dead", "timeout", "refused", "opted out", "too large")  # fates of links whose bytes did not come
COLUMNS = ["host", "asked", ANSWERED, *FAILURES]


class Hosts:
    """Counts links, each once, however many classes it is a neighbour of."""

    def __init__(self):
        self.counted = np.zeros(0, bool)  # of links, by their number
        self.outcomes: dict[tuple[str, str], int] = {}

    def add(self, rows: pd.DataFrame) -> None:
        """Neighbours with url, fate, sha256 (null where no bytes came) and link: a number for each address that was
        asked for, -1 where none was."""
        rows = rows[rows["link"] >= 0].drop_duplicates("link")
        links = rows["link"].to_numpy(int)
        if len(links) and links.max() >= len(self.counted):
            self.counted = np.pad(self.counted, (0, 2 * int(links.max()) + 1 - len(self.counted)))
        fresh = rows[~self.counted[links]]
        self.counted[links] = True
        outcomes = fresh["fate"].where(fresh["sha256"].isna(), ANSWERED)
        for url, outcome in zip(fresh["url"], outcomes, strict=True):
            place = (host_of(url), outcome)
            self.outcomes[place] = self.outcomes.get(place, 0) + 1

    def table(self) -> pd.DataFrame:
        """COLUMNS, the hosts with the most links first."""
        counts = pd.Series(self.outcomes, dtype=int)
        if counts.empty:
            return pd.DataFrame(columns=COLUMNS)
        counts = counts.unstack(fill_value=0).reindex(columns=COLUMNS[2:], fill_value=0)
        counts.insert(0, "asked", counts.sum(axis=1))
        counts = counts.rename_axis("host").reset_index()
        return counts.sort_values(["asked", "host"], ascending=[False, True], ignore_index=True)[COLUMNS]


def host_of(url: str) -> str:
    """The host of an address; empty for what has none."""
    try:
        return urllib.parse.urlsplit(spelt(url)).hostname or ""
    except ValueError:
        return ""
