"""Nearest neighbours of queries in CLIP space, from a service; their tables are those of an index."""

import time
from collections.abc import Iterator, Sequence

import pandas as pd

from augbench.core import processes
from augbench.retrieval.metadata import complete


class Service:
    """A running ``clip-retrieval back``, asked through its own client.

    Its duplicate detector has a fixed threshold and does not say of what an image is a duplicate, so each
    prompt is asked twice, with and without it; ``duplicate_of`` is then -1.
    """

    def __init__(
        self,
        url: str,
        index: str,
        *,
        attempts: int = 6,
        pause: float = 0.0,
        wait: float = 1.0,
        timeout=120.0,
        licences: bool = False,
    ):
        """
        Parameters
        ----------
        attempts : for each question, with a wait between them that doubles from ``wait`` seconds
        pause : seconds between questions, to spare the service
        timeout : seconds for a whole answer
        licences : whether answers must state them, which older ones that are cached do not
        """
        self.url, self.index, self.attempts, self.pause, self.wait = url, index, attempts, pause, wait
        self.timeout = timeout
        self.identity = [url, index, *["licence"] * licences]

    def neighbours(
        self,
        queries: Sequence,
        counts: Sequence[int],
        threshold: float,
        *,
        diversity: float = 0.0,
        among: Sequence = (),
    ) -> Iterator[pd.DataFrame]:
        """The tables of the queries; ``threshold`` has no effect here, the service has its own. Raises ValueError
        for a ``diversity``: a service returns no embeddings."""
        if diversity:
            raise ValueError("a service returns no embeddings, so its images cannot be diversified; use an index")
        for query, count in zip(queries, counts, strict=True):
            everything = pd.DataFrame(self._ask(query, count, deduplicate=False))
            if everything.empty:
                yield complete(pd.DataFrame({"id": [], "similarity": [], "duplicate_of": []}), everything)
                continue
            distinct = {row["id"] for row in self._ask(query, count, deduplicate=True)}
            everything = everything.sort_values(["similarity", "id"], ascending=[False, True], ignore_index=True)
            table = everything[["id", "similarity"]].copy()
            table["duplicate_of"] = [None if image in distinct else -1 for image in table["id"]]
            yield complete(table, everything)

    def _ask(self, query, count: int, deduplicate: bool) -> list[dict]:
        from clip_retrieval.clip_client import ClipClient

        client = ClipClient(
            self.url,
            self.index,
            aesthetic_score="",  # nothing may bend the query
            aesthetic_weight=0,
            num_images=count,
            deduplicate=deduplicate,
            use_safety_model=False,
            use_violence_detector=False,
        )
        asked = {"text": query} if isinstance(query, str) else {"embedding_input": [float(x) for x in query]}
        for attempt in range(self.attempts):
            time.sleep(self.pause if attempt == 0 else self.wait * 2 ** (attempt - 1))
            try:
                answer = processes.answer(lambda: client.query(**asked), self.timeout)
                if isinstance(answer, list):
                    return answer
                problem = f"it answered {str(answer)[:200]}"
            except (OSError, ValueError) as error:  # no connection, or an answer that is no JSON
                problem = str(error)[:200]
        raise ConnectionError(
            f"the retrieval service at {self.url} failed {self.attempts} times ({problem}); "
            "is `clip-retrieval back` running there? Its answers so far are cached; run again to continue"
        )
