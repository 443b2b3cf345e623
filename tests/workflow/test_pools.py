"""Studies that know nothing of digits: one's own folders, with retrieval's variants, and data sets of Parquet."""

import json
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augbench import images

pytestmark = pytest.mark.slow

METHODS = ["none", "retrieval", "retrieval_templates", "retrieval_text_and_images", "retrieval_diverse"]
STUDIES = f"""
studies:
  own:
    seed: 3
    methods: [{", ".join(METHODS)}]
    runs: 1
    scaling: {{methods: [retrieval], ratios: [3]}}
    target: {{reader: folder, path: results/small/digits/target, classes: results/small/digits/classes.csv}}
    dataset: {{train: 0.05, validation: 0.05}}
    clip: &clip {{model: "hf_clip:results/small/clip"}}
    backbone: {{model: results/small/backbone}}
    pool: {{source: folder, path: own_pool}}
    retrieval: &retrieval {{duplicate_threshold: 0.9999, min_aesthetic: null}}
    classifier: &classifier
      {{model: small_cnn, image_size: 32, batch_size: 32, learning_rate: 0.05, max_epochs: 2, horizontal_flip: false}}
    jobs: {{images_per_shard: 1000, shards_per_embedding: 1}}

  published:
    seed: 3
    methods: [none, retrieval_captions_and_clip]
    runs: 1
    target: {{reader: huggingface, path: published/target, classes: results/small/digits/classes.csv}}
    dataset: {{train: 0.05, validation: 0.05}}
    clip: *clip
    safety: {{model: none}}
    pool: {{source: huggingface, path: published/pool}}
    retrieval: *retrieval
    classifier: *classifier
"""


def write_data_set(folder, name, rows, metadata=None):
    """Rows with an image's bytes as a Parquet file such as the library datasets publishes."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([row | {"image": {"bytes": row["image"], "path": None}} for row in rows])
    pq.write_table(
        table.replace_schema_metadata(metadata), folder / f"{name}-00000-of-00001.parquet", row_group_size=100
    )


def publish(folder, digits):
    """The small study's target and web as data sets of Parquet; the target's classes are mixed."""
    classes = pd.read_csv(digits / "classes.csv")["class"].tolist()
    feature = {"label": {"names": classes, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    note = {"huggingface": json.dumps({"info": {"features": feature}})}
    for split in ("train", "test"):
        files = sorted((digits / "target" / split).glob("*/*.png"), key=lambda file: (file.name, file.parent.name))
        rows = [{"image": file.read_bytes(), "label": classes.index(file.parent.name)} for file in files]
        write_data_set(folder / "target", split, rows, note)
    web = [
        {"image": sample["png"], "text": sample["txt"].decode(), "license": "CC0"}
        for _, sample in images.read_shard(digits / "web.tar")
    ]
    write_data_set(folder / "pool", "train", web)


@pytest.fixture(scope="module")
def built_studies(built):
    """Both studies over the pictures of the small study's web: as a folder, and as a data set of Parquet."""
    digits, pool = built.folder / "results/small/digits", built.folder / "own_pool"
    pool.mkdir()
    for key, sample in images.read_shard(digits / "web.tar"):
        (pool / f"{key}.png").write_bytes(sample["png"])
        (pool / f"{key}.txt").write_bytes(sample["txt"])
    publish(built.folder / "published", digits)
    (built.folder / "own.yaml").write_text(STUDIES)
    targets = ["results/own/tables/scaling.csv", "results/published/report.html"]
    code, output = built.snakemake(*targets, "--configfile", "own.yaml", "--cores", "2")
    assert code == 0, output
    return built.folder / "results"


@pytest.fixture(scope="module")
def results(built_studies):
    return built_studies / "own"


@pytest.fixture(scope="module")
def published(built_studies):
    return built_studies / "published"


def test_the_folder_is_packed_and_embedded_in_shards(results):
    shards = sorted((results / "pool/shards").glob("*.tar"))
    pictures = len(list((results.parents[1] / "own_pool").glob("*.png")))
    assert len(shards) == -(-pictures // 1000) == 2 == len(list((results / "pool/embeddings").iterdir()))
    assert sum(len(list(images.read_shard(shard))) for shard in shards) == pictures


def test_every_variant_retrieves_and_none_downloads(results):
    chosen = {}
    for method in METHODS[1:]:
        folder = results / "retrieval" / method
        ledger = pd.concat(map(pd.read_parquet, folder.glob("**/ledger.parquet")))
        used = ledger[ledger["fate"] == "used"]
        assert not used["sha256"].duplicated().any()
        chosen[method] = frozenset(zip(used["class"], used["id"], strict=True))
    assert len(set(chosen.values())) == len(chosen)  # each chooses otherwise
    assert not (results / "retrieval" / "downloads").exists()


def test_scaling_says_what_classes_that_fell_short_could_mean(results):
    table = pd.read_csv(results / "tables" / "scaling.csv")
    assert list(zip(table["method"], table["ratio"], strict=True)) == [
        ("none", 0),
        ("retrieval", 1),
        ("retrieval", 3),
        *((method, 1) for method in METHODS[2:]),
    ]
    assert (table["accuracy_worst"] <= table["accuracy_mean"]).all()
    test = images.read(results / "dataset" / "test.parquet")
    for row in table.itertuples():
        metrics = results / "classifier" / row.method / f"x{row.ratio:g}" / "run-1" / "metrics.json"
        tested = json.loads(metrics.read_text())["n_test"]
        gap = 100 * (1 - tested / len(test))
        assert row.accuracy_best - row.accuracy_worst == pytest.approx(gap, abs=1e-3)
        assert (row.classes < test["class"].nunique()) == (gap > 0)


def test_a_target_and_a_pool_of_parquet_are_read_where_they_lie(published, monkeypatch):
    monkeypatch.chdir(published.parents[1])  # to which paths in image tables are relative
    target, pool = (published.parents[1] / "published" / name for name in ("target", "pool"))
    splits = {name: images.read(published / "dataset" / f"{name}.parquet") for name in ("train", "validation", "test")}
    assert {file for table in splits.values() for file in table["path"]} == {
        str(file.relative_to(published.parents[1])) for file in target.iterdir()
    }
    labels = {"train": [], "test": []}
    for file in target.iterdir():
        read = pq.read_table(file)
        stored = [image["bytes"] for image in read["image"].to_pylist()]
        names = json.loads(read.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
        own = pd.concat([table[table["path"].str.endswith(file.name)] for table in splits.values()])
        assert [images.load_bytes(row) for row in own.itertuples()] == [stored[row] for row in own["offset"]]
        assert list(own["class"]) == [names[read["label"][row].as_py()] for row in own["offset"]]
        labels[file.name.partition("-")[0]] += list(own["offset"])
    assert len(labels["test"]) == len(splits["test"]) == len(pq.read_table(next(target.glob("test*"))))
    ledger = pd.read_parquet(published / "retrieval/retrieval_captions_and_clip/ledger.parquet")
    ids = ledger[ledger["fate"] == "used"].set_index("sha256")["id"]
    stored = [image["bytes"] for image in pq.read_table(pool)["image"].to_pylist()]
    used = images.read(published / "retrieval/retrieval_captions_and_clip/images.parquet")
    assert len(used) == len(ids) == len(splits["train"])
    assert [images.load_bytes(row) for row in used.itertuples()] == [stored[ids[digest]] for digest in used["sha256"]]
    assert [file.name for file in published.rglob("*.tar")] == ["images.tar"]  # nothing else is copied


def test_images_of_both_are_those_whose_captions_name_the_class_and_a_report_shows_them(published):
    classes = pd.read_csv(published / "dataset/classes.csv").set_index("class")
    ledger = pd.read_parquet(published / "retrieval/retrieval_captions_and_clip/ledger.parquet")
    used = ledger[ledger["fate"] == "used"]
    assert set(used["class"]) == set(classes.index[classes["excluded"].isna()])
    for key, caption in zip(used["class"], used["caption"], strict=True):
        names = "|".join(name.strip() for name in classes.loc[key, "lemmas"].split(","))
        assert re.search(rf"\b({names})\b", caption)
    assert set(used["licence"]) == {"CC0"}
    for name, ratio in (("none", 0), ("retrieval_captions_and_clip", 1)):
        metrics = json.loads((published / "classifier" / name / f"x{ratio}" / "run-1/metrics.json").read_text())
        assert metrics["n_test"] == len(images.read(published / "dataset/test.parquet"))
    assert "captions, then CLIP" in (published / "report.html").read_text()
