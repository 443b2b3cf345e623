"""Retrieval, the paper's baseline: nearest neighbours of a class's prompt in CLIP space, downloaded and filtered."""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.backbone import SafetyChecker
from augbench.files import whole
from augbench.prompts import fill, templates

FATES = {  # what became of a neighbour, in the order in which it is found out
    "unaesthetic": "aesthetic score too low",
    "duplicate": "duplicate of a more similar neighbour",
    "dead": "could not be downloaded",
    "unreadable": "not an image",
    "unsafe": "refused by the safety checker",
    "spare": "good, but not needed",
    "used": "good and among the most similar",
}


class LocalIndex:
    """A clip-retrieval index folder on this machine, searched by clip-retrieval's own service class."""

    columns = ["url", "caption", "text", "TEXT", "aesthetic", "AESTHETIC_SCORE"]

    def __init__(self, folder: str | Path, clip_model: str):
        from clip_retrieval.clip_back import ClipOptions, KnnService, load_clip_index

        options = ClipOptions(
            indice_folder=str(folder),
            clip_model=clip_model,
            enable_hdf5=False,
            enable_faiss_memory_mapping=True,
            columns_to_return=self.columns,
            reorder_metadata_by_ivf_index=False,
            enable_mclip_option=False,
            use_jit=False,
            use_arrow=False,
            provide_safety_model=False,
            provide_violence_detector=False,
            provide_aesthetic_embeddings=False,
        )
        self._resource = load_clip_index(options)
        self._service = KnnService(clip_resources={"pool": self._resource})

    def neighbours(self, prompt: str, count: int, duplicate_threshold: float) -> pd.DataFrame:
        """The ``count`` most similar images to a prompt, most similar first, ties by id.

        Columns id, similarity, url, caption, aesthetic (null where unknown), duplicate: whether
        clip-retrieval's duplicate detector finds it too close to a more similar one.
        """
        from clip_retrieval.clip_back import normalized

        query = self._service.compute_query(self._resource, prompt, None, None, None, False, None, None)
        similarities, ids, vectors = self._resource.image_index.search_and_reconstruct(query, count)
        found = pd.DataFrame({"id": ids[0], "similarity": similarities[0].astype(float), "place": range(len(ids[0]))})
        found = found[found["id"] >= 0].sort_values(["similarity", "id"], ascending=[False, True], ignore_index=True)
        vectors = normalized(vectors[0][found.pop("place")])  # they are stored in half precision
        duplicates = set(self._service.get_non_uniques(vectors, duplicate_threshold))
        facts = pd.DataFrame(self._resource.metadata_provider.get(list(found["id"]), self.columns))
        found["url"] = facts["url"]
        found["caption"] = _first(facts, ["caption", "text", "TEXT"])
        found["aesthetic"] = pd.to_numeric(_first(facts, ["aesthetic", "AESTHETIC_SCORE"]), errors="coerce")
        found["duplicate"] = [place in duplicates for place in found.index]
        return found


def _first(facts: pd.DataFrame, names: list[str]):
    return next((facts[name] for name in names if name in facts), None)


def retrieve(
    wanted: pd.DataFrame,
    source: LocalIndex,
    checker: SafetyChecker,
    work: str | Path,
    candidates_path: str | Path,
    shard: str | Path,
    table: str | Path,
    *,
    overfetch: float,
    overfetch_max: float,
    min_aesthetic: float,
    duplicate_threshold: float,
    max_image_size: int,
    timeout: int,
    retries: int,
    download_threads: int,
    proxy: str | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Retrieve images for each class (paper, section 3.1, "Laion nearest neighbor retrieval").

    Neighbours asked for grow from ``overfetch`` x n, doubling, to ``overfetch_max`` x n, for classes that
    are still short only. What was downloaded is kept in ``work``, so a repeated run continues.

    Parameters
    ----------
    wanted : columns class, prompt, count
    candidates_path : Parquet of every neighbour considered: class, rank, id, similarity, url, caption,
        aesthetic, fate (a key of FATES)
    shard, table : the good images of all classes and their image table, by class and similarity. Images
        are kept as downloaded if they are JPEG and not too large, else encoded again.
    proxy : address of an HTTP proxy for the downloads
    """
    factors = [overfetch]
    while factors[-1] < overfetch_max:
        factors.append(min(2 * factors[-1], overfetch_max))
    found: dict[str, pd.DataFrame] = {}
    pictures: dict[str, tuple | None] = {}  # url -> (encoded bytes, sha256), or None where it could not be had
    verdicts: dict[str, str] = {}  # url -> unreadable, unsafe or good
    short = wanted
    for turn, factor in enumerate(factors):
        for row in short.itertuples():
            count = -int(-(factor * row.count) // 1)
            found[row[1]] = source.neighbours(row.prompt, count, duplicate_threshold)
        urls = {
            url
            for key in short["class"]
            for url in found[key].loc[_eligible(found[key], min_aesthetic), "url"]
            if url not in pictures
        }
        pictures |= _download(sorted(urls), Path(work), max_image_size, timeout, retries, download_threads, proxy)
        verdicts |= _judge({url: pictures[url] for url in sorted(urls)}, checker)
        for row in short.itertuples():
            found[row[1]] = _fates(found[row[1]], pictures, verdicts, row.count, min_aesthetic)
        have = {key: int((rows["fate"] == "used").sum()) for key, rows in found.items()}
        short = wanted[[have[key] < count for key, count in zip(wanted["class"], wanted["count"], strict=True)]]
        progress(turn + 1, len(factors), f"rounds: {len(wanted) - len(short)} of {len(wanted)} classes filled")
        if short.empty:
            break
    ledger = pd.concat([rows.assign(**{"class": key, "rank": range(len(rows))}) for key, rows in found.items()])
    columns = ["class", "rank", "id", "similarity", "url", "caption", "aesthetic", "fate"]
    _write_good(ledger[ledger["fate"].isin(["used", "spare"])], pictures, shard, table)
    with whole(candidates_path) as temporary:
        ledger[columns].to_parquet(temporary, index=False)


def counts(table: pd.DataFrame, images_per_class: int | None, ratio: float) -> dict[str, int]:
    """Images to retrieve per class: ``images_per_class``, or as many as it has training images where that is
    more, times the largest augmentation ratio. ``table``: image table with the column ``split``."""
    training = table[table["split"] == "train"].groupby("class").size()
    return {key: math.ceil(ratio * max(images_per_class or 0, count)) for key, count in training.items()}


def wanted(classes: pd.DataFrame, counts: dict[str, int], conditioning: str) -> pd.DataFrame:
    """What to retrieve, columns class, prompt, count, for a class table and the template of a conditioning."""
    template = templates(conditioning)[0]
    rows = [(row[1], fill(template, row.lemmas), counts[row[1]]) for row in classes[["class", "lemmas"]].itertuples()]
    return pd.DataFrame(rows, columns=["class", "prompt", "count"])


def shortfall(candidates: pd.DataFrame, counts: dict[str, int]) -> dict[str, str]:
    """Classes that cannot be filled, with a sentence each; they are excluded for every method (paper, section 3)."""
    used = candidates[candidates["fate"] == "used"].groupby("class").size()
    return {
        key: f"retrieval found {used.get(key, 0)} of {count} images"
        for key, count in counts.items()
        if used.get(key, 0) < count
    }


def _eligible(rows: pd.DataFrame, min_aesthetic: float) -> pd.Series:
    return ~rows["duplicate"] & ~(rows["aesthetic"] < min_aesthetic) & rows["url"].str.match(r"https?://", na=False)


def _fates(rows: pd.DataFrame, pictures: dict, verdicts: dict, count: int, min_aesthetic: float) -> pd.DataFrame:
    fates, good = [], 0
    for row in rows.itertuples():
        if row.aesthetic < min_aesthetic:
            fate = "unaesthetic"
        elif row.duplicate:
            fate = "duplicate"
        elif pictures.get(row.url) is None:
            fate = "dead"
        elif verdicts[row.url] != "good":
            fate = verdicts[row.url]
        else:
            good += 1
            fate = "used" if good <= count else "spare"
        fates.append(fate)
    return rows.assign(fate=fates)


def _judge(pictures: dict, checker: SafetyChecker) -> dict[str, str]:
    decoded, verdicts = {}, {}
    for url, downloaded in pictures.items():
        if downloaded is not None:
            try:
                decoded[url] = images.decode(downloaded[0], url)
            except ValueError:
                verdicts[url] = "unreadable"
    for url, refused in zip(decoded, checker.unsafe(list(decoded.values())), strict=True):
        verdicts[url] = "unsafe" if refused else "good"
    return verdicts


def _download(urls: list[str], work: Path, size: int, timeout: int, retries: int, threads: int, proxy) -> dict:
    """url -> (encoded bytes, sha256 of what was downloaded), or None; by img2dataset, resumable."""
    if not urls:
        return {}
    # img2dataset takes a shard for done if its JSON exists, even for other URLs: one folder per list.
    digest = hashlib.sha256("\n".join([str(size), *urls]).encode()).hexdigest()[:16]
    folder = work / digest
    folder.mkdir(parents=True, exist_ok=True)
    listing = work / f"{digest}.parquet"
    with whole(listing) as temporary:
        pd.DataFrame({"url": urls}).to_parquet(temporary, index=False)
    options = {
        "url_list": str(listing),
        "input_format": "parquet",
        "output_folder": str(folder),
        "output_format": "webdataset",
        "image_size": size,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "skip_reencode": True,
        "encode_format": "jpg",
        "encode_quality": 95,
        "processes_count": 1,
        "thread_count": threads,
        "timeout": timeout,
        "retries": retries,
        "number_sample_per_shard": 1000,
    }
    environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}  # img2dataset's library would ask the network
    if proxy:
        environment |= {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""}
    # A process of its own: img2dataset spawns workers that import the main module again.
    command = "import sys, json; from img2dataset import download; download(**json.loads(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", command, json.dumps(options)], env=environment, check=True)
    result = dict.fromkeys(urls)
    for tar in sorted(folder.glob("*.tar")):
        status = pd.read_parquet(tar.with_suffix(".parquet"))
        sha256 = dict(zip(status["url"], status["sha256"], strict=True))
        url_of = dict(zip(status["key"], status["url"], strict=True))
        for key, sample in images.read_shard(tar):
            data = sample.get("jpg") or sample.get("png")
            if data:
                result[url_of[key]] = (data, sha256[url_of[key]])
    return result


def _write_good(good: pd.DataFrame, pictures: dict, shard: str | Path, table: str | Path) -> None:
    rows = []
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for row in good.to_dict("records"):
            data, sha256 = pictures[row["url"]]
            name = f"{row['class']}-{row['rank']:05d}"
            extension = "png" if data.startswith(b"\x89PNG") else "jpg"
            members = {
                extension: data,
                "txt": row["caption"] or "",
                "json": {"url": row["url"], "sha256": sha256},
            }
            offset, length = writer.add(name, members, of=extension)
            rows.append(
                {
                    "image_id": f"retrieval/{row['class']}/{row['id']}",
                    "class": row["class"],
                    "path": str(shard),
                    "offset": offset,
                    "length": length,
                    "url": row["url"],
                    "similarity": row["similarity"],
                    "sha256": sha256,
                }
            )
    images.write(table, images.table(rows))
