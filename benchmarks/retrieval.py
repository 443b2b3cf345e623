"""Retrieval at scale: a large index against a loop of ClipClient calls; metadata and pools in flat memory.

`python benchmarks/retrieval.py search` builds an index of a million random vectors with autofaiss and asks it
1,000 queries for 1,820 neighbours each (14 x 130, the most that the paper's protocol asks for), then asks some of
the same of a `clip-retrieval back` on the same index, in the same run. `... pool` embeds and indexes pools of tiny
images of growing size. `... metadata` asks tables of metadata of 5 and of 50 million rows for the neighbours of 1,000
queries; it needs 10 GB of disk. `... scan` compares published embeddings with queries, against faiss' `IndexFlatIP`
on the same blocks, and builds an index of some of them. All print what they measured; nothing is asserted.
"""

import argparse
import contextlib
import io
import json
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from augbench import images
from augbench.models import train_clip
from augbench.models.clip import Clip
from augbench.retrieval import embedding, metadata, scan
from augbench.retrieval import index as neighbours
from augbench.study import embedding_pairs
from augbench.study.sections.models import ClipTraining

CLIP = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "heads": 2, "text_tokens": 16}
CLIP |= {"steps": 1, "batch_size": 16, "learning_rate": 1e-3, "threads": 1}


def shard_of(path: Path, count: int) -> None:
    """A shard of noise pictures of 32 pixels with captions."""
    random = np.random.default_rng(0)
    encoded = [
        images.encode_png(Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8))) for _ in range(64)
    ]
    with images.ShardWriter(path) as writer:
        for number in range(count):
            caption = f"noise {number}"
            writer.add(
                f"{number:09d}", {"png": encoded[number % 64], "txt": caption, "json": {"n": number}}, image="png"
            )


def small_clip(folder: Path, width: int) -> str:
    shard_of(folder / "few.tar", 64)
    train_clip.train([folder / "few.tar"], folder / "clip", ClipTraining(projection=width, **CLIP), seed=0)
    return f"hf_clip:{folder / 'clip'}"


def build(folder: Path, count: int, width: int) -> None:
    """An index of random directions whose lists can be memory-mapped, and its metadata."""
    import faiss
    from autofaiss import build_index

    random = np.random.default_rng(1)
    (folder / "vectors").mkdir()
    (folder / "index" / "metadata").mkdir(parents=True)
    for part, start in enumerate(range(0, count, 100_000)):
        rows = min(100_000, count - start)
        vectors = random.standard_normal((rows, width), dtype=np.float32)
        np.save(folder / f"vectors/{part:04d}.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        names = [f"http://example.org/{start + i}.jpg" for i in range(rows)]
        table = pd.DataFrame({"url": names, "caption": "a caption of some length, as captions have", "aesthetic": 6.0})
        table.to_parquet(folder / f"index/metadata/{part:04d}.parquet")
    index, _ = build_index(
        embeddings=str(folder / "vectors"),
        save_on_disk=False,
        index_key="IVF1024,Flat",
        index_param="nprobe=16",
        max_index_memory_usage="8G",
        current_memory_available="16G",
        should_be_memory_mappable=True,
    )
    faiss.write_index(index, str(folder / "index" / "image.index"))


class Memory:
    """The private memory (MB, without files that are mapped) of this process: before, and at most while the block
    lasts."""

    def __enter__(self):
        self.before = self.largest = self.private()
        self.ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def _watch(self):
        while not self.ended.wait(0.01):
            self.largest = max(self.largest, self.private())

    @staticmethod
    def private() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    def __exit__(self, *_):
        self.ended.set()


def metadata_batch(start: int, count: int) -> pa.Table:
    """Rows whose address and caption take some 60 bytes each: 50 million are more than 2 GiB a column."""
    numbers = pc.cast(pa.array(np.arange(start, start + count)), pa.string())
    around = lambda *texts: pc.call_function("binary_join_element_wise", [texts[0], numbers, texts[1], ""])  # noqa: E731
    url = around("https://images.example.org/some-folder-of-pictures/", ".jpg")
    caption = around("a photograph of the thing that has the number ", " of many")
    return pa.table({"url": url, "caption": caption, "aesthetic": np.full(count, 6.0)})


def write_metadata(folder: Path, kind: str, rows: int) -> None:
    """Files of 5 million rows, in batches (Arrow) or row groups (Parquet) of a million, as clip-retrieval has them."""
    (folder / "metadata").mkdir(parents=True)
    schema = metadata_batch(0, 1).schema
    for number, begin in enumerate(range(0, rows, 5_000_000)):
        file = folder / "metadata" / f"{number:04d}.{kind}"
        with pa.ipc.new_file(str(file), schema) if kind == "arrow" else pq.ParquetWriter(file, schema) as writer:
            for start in range(begin, min(begin + 5_000_000, rows), 1_000_000):
                writer.write_table(metadata_batch(start, min(1_000_000, rows - start)))


def ask_metadata(folder: Path, rows: int, queries: int, each: int) -> None:
    """Metadata of random neighbours of all queries, in this process; and of one by ``Table.take`` where it can."""
    random = np.random.default_rng(0)

    def neighbours_of_queries():
        for _ in range(queries):
            yield pd.DataFrame({"id": random.integers(0, rows, each), "similarity": 0.5, "duplicate_of": None})

    with Memory() as memory:
        start = time.monotonic()
        reader = metadata.reader(folder, metadata.WANTED)
        opened = time.monotonic()
        for table in reader.complete(neighbours_of_queries()):
            assert table["url"].iloc[0].endswith(f"/{table['id'].iloc[0]}.jpg")
        ended = time.monotonic()
    print(
        f"  {queries:,} queries of {each:,} neighbours: {ended - opened:.1f} s, beside {opened - start:.2f} s to open;"
    )
    print(f"  private memory {memory.largest:.0f} MB at most, {memory.before:.0f} MB before")
    if files := sorted(folder.glob("metadata/*.arrow")):
        table = pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files])
        start = time.monotonic()
        with Memory() as memory:
            try:
                table.take(random.integers(0, rows, each))
                said = f"{time.monotonic() - start:.1f} s"
            except pa.ArrowException as error:
                said = str(error)
        print(f"  one query by Table.take: {said}, {memory.largest - memory.before:.0f} MB")


def compare_metadata(sizes: list[int], queries: int, each: int) -> None:
    for kind in ("arrow", "parquet"):
        for rows in sizes:
            with tempfile.TemporaryDirectory() as name:
                write_metadata(Path(name), kind, rows)
                stored = sum(file.stat().st_size for file in Path(name).glob("metadata/*"))
                print(f"{kind}, {rows:,} rows, {stored / 1e9:.1f} GB on disk:", flush=True)
                options = ["--folder", name, "--count", str(rows), "--queries", str(queries), "--each", str(each)]
                subprocess.run([sys.executable, __file__, "ask", *options], check=True)


def serve(folder: Path, model: str) -> tuple[subprocess.Popen, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "indices.json").write_text(json.dumps({"web": str(folder / "index")}))
    arguments = {"indices_paths": str(folder / "indices.json"), "port": port, "clip_model": model, "use_jit": False}
    arguments |= {"enable_faiss_memory_mapping": True, "enable_mclip_option": False}
    arguments |= {"provide_aesthetic_embeddings": False, "columns_to_return": ["url", "caption", "aesthetic"]}
    command = (
        "import sys, json; from clip_retrieval.clip_back import clip_back; from augbench.models import clip; "
        "clip.read_folders(); clip_back(**json.loads(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", command, json.dumps(arguments)], stderr=subprocess.DEVNULL)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}/knn-service"
        if process.poll() is not None:
            raise RuntimeError("clip-retrieval back ended")
        time.sleep(0.5)


def search(count: int, width: int, queries: int, each: int, asked: int) -> None:
    from clip_retrieval.clip_client import ClipClient

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = small_clip(folder, width)
        start = time.monotonic()
        build(folder, count, width)
        size = (folder / "index/image.index").stat().st_size
        print(f"index of {count:,} x {width}: {size / 1e9:.1f} GB, built in {time.monotonic() - start:.0f} s")
        prompts = [f"A photo of thing number {i}." for i in range(queries)]
        with Memory() as memory:
            index = neighbours.LocalIndex(folder / "index", Clip(model))
            start = time.monotonic()
            matches = sum(len(table) for table in index.neighbours(prompts, [each] * queries, 0.94))
            ours = (time.monotonic() - start) / queries
        print(f"augbench: {queries:,} queries, {matches:,} neighbours, {1000 * ours:.0f} ms a query;")
        print(f"  largest private memory {memory.largest:.0f} MB (the index itself is mapped)")
        process, url = serve(folder, model)
        try:
            client = ClipClient(url, "web", aesthetic_score="", aesthetic_weight=0, num_images=each)
            client.use_safety_model = client.use_violence_detector = False
            client.query(text=prompts[0])
            start = time.monotonic()
            for prompt in prompts[:asked]:
                client.query(text=prompt)
            theirs = (time.monotonic() - start) / asked
        finally:
            process.kill()
        print(f"ClipClient: {asked:,} queries, {1000 * theirs:.0f} ms a query; {theirs / ours:.1f}x ours")


def embed(sizes: list[int]) -> None:
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model = small_clip(folder, 64)
            shards = [folder / f"{start:09d}.tar" for start in range(0, size, 10_000)]
            for shard in shards:
                shard_of(shard, min(size, 10_000))
            code = (
                "import sys; from augbench.retrieval import embedding\n"
                "if __name__ == '__main__':\n"
                "    model, folder, *shards = sys.argv[1:]\n"
                "    embedding.embed(shards, model, folder + '/e', batch_size=256, threads=1, places=True)\n"
                "    embedding.build_index([folder + '/e'], folder + '/i', exact=True, memory='2G', threads=1)\n"
            )
            script = folder / "job.py"
            script.write_text(code)
            start = time.monotonic()
            subprocess.run(
                [sys.executable, str(script), model, str(folder), *map(str, shards)], check=True, capture_output=True
            )
            took = time.monotonic() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(f"pool of {size:,}: embedded and indexed in {took:.0f} s, largest process {peak:.0f} MB", flush=True)


class Directions:
    """Takes the place of a CLIP whose texts have random directions."""

    def texts(self, texts):
        vectors = np.random.default_rng(2).standard_normal((len(texts), 512), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_pairs(folder: Path, rows: int) -> None:
    """Random directions in half precision, in files of at most half a million, and their addresses."""
    random = np.random.default_rng(3)
    for part, start in enumerate(range(0, rows, 500_000)):
        count = min(500_000, rows - start)
        file = np.lib.format.open_memmap(folder / f"{part:04d}.npy", "w+", np.float16, (count, 512))
        for begin in range(0, count, 50_000):
            vectors = random.standard_normal((min(50_000, count - begin), 512), dtype=np.float32)
            file[begin : begin + 50_000] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        table = pa.table({"url": [f"http://example.org/{number}.jpg" for number in range(start, start + count)]})
        pq.write_table(table, folder / f"{part:04d}.parquet")


def flat_search(pairs, queries: np.ndarray, each: int) -> float:
    """Seconds of ``IndexFlatIP`` with the blocks of a scan. Neither reading them is counted, nor what a scan does
    beside: it reads the vectors of the first tenth of the neighbours, as a study wants them at first."""
    import faiss

    index, best, seconds, shown = faiss.IndexFlatIP(512), faiss.ResultHeap(len(queries), each, keep_max=True), 0.0, 0
    for pair in pairs:
        for block in scan.blocks(embedding_pairs.vectors(pair)):
            start = time.monotonic()
            index.add(block)
            similarities, ids = index.search(queries, each)
            best.add_result(similarities, ids + shown)
            index.reset()
            seconds += time.monotonic() - start
            shown += len(block)
    start = time.monotonic()
    best.finalize()
    return seconds + time.monotonic() - start


def compare_scan(rows: int, queries: list[int], each: int, rounds: int, indexed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, rows)
        pairs, per_query, before = embedding_pairs.pairs(folder), [], Memory.private()
        print(f"{rows:,} x 512, float16:", flush=True)
        for count in queries:
            vectors = Directions().texts([""] * count)
            ours, theirs, largest = [], [], []
            for _ in range(rounds):
                with Memory() as memory, contextlib.redirect_stdout(io.StringIO()):
                    source, start = scan.Scan(folder, None, Directions()), time.monotonic()
                    for _ in source.nearest(vectors, [each // 10] * count, [each] * count):
                        pass
                    ours.append(time.monotonic() - start)
                largest.append(memory.largest - before)
                theirs.append(flat_search(pairs, vectors, each))
            per_query.append(min(ours) / count)
            print(
                f"  {count:,} queries of {each:,}: {min(ours):.2f} s, IndexFlatIP {min(theirs):.2f} s, "
                f"{min(ours) / min(theirs):.2f}x; private memory {largest[0]:.0f} MB more",
                flush=True,
            )
        if rows <= indexed:
            start = time.monotonic()
            (folder / "e" / "metadata").mkdir(parents=True)
            (folder / "e" / "img_emb").mkdir()
            for pair in pairs:
                (folder / "e" / "img_emb" / pair.vectors.name).symlink_to(pair.vectors)
            embedding.build_index([folder / "e"], folder / "i", exact=False, memory="4G", threads=1)
            took = time.monotonic() - start
            print(
                f"  an index by autofaiss: {took:.0f} s, as a scan for {took / min(per_query):,.0f} queries", flush=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["search", "pool", "metadata", "ask", "scan"])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--each", type=int, default=1820, help="neighbours of a query")
    parser.add_argument("--asked", type=int, default=20, help="queries that ClipClient is timed on")
    parser.add_argument("--sizes", type=int, nargs="+", help="of pools, or of tables of metadata")
    parser.add_argument("--rounds", type=int, default=3, help="of `scan`, of which the best counts")
    parser.add_argument("--indexed", type=int, default=200_000, help="rows of which `scan` also builds an index")
    parser.add_argument("--folder", type=Path, help="of the metadata that `ask` reads")
    options = parser.parse_args()
    if options.what == "search":
        search(options.count, 512, options.queries, options.each, options.asked)
    elif options.what == "pool":
        embed(options.sizes or [20_000, 200_000])
    elif options.what == "metadata":
        compare_metadata(options.sizes or [5_000_000, 50_000_000], options.queries, options.each)
    elif options.what == "scan":
        for size in options.sizes or [20_000, 200_000, 2_000_000]:
            compare_scan(size, [10, 100, 1000], options.each, options.rounds, options.indexed)
    else:
        ask_metadata(options.folder, options.count, options.queries, options.each)
