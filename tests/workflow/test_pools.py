"""One's own images and one's own pool: a study that knows nothing of digits, with retrieval's variants."""

import json

import pandas as pd
import pytest

from augbench import images

pytestmark = pytest.mark.slow

METHODS = ["none", "retrieval", "retrieval_templates", "retrieval_text_and_images", "retrieval_diverse"]
STUDY = """
studies:
  own:
    seed: 3
    methods: [{methods}]
    runs: 1
    ratios: [1, 3]
    target: {{reader: folder, path: results/small/digits/target, classes: results/small/digits/classes.csv}}
    dataset: {{train: 0.05, validation: 0.05}}
    clip: {{model: "hf_clip:results/small/clip"}}
    backbone: {{model: results/small/backbone}}
    pool: {{source: folder, path: own_pool}}
    retrieval: {{duplicate_threshold: 0.9999, min_aesthetic: null}}
    classifier:
      {{model: small_cnn, image_size: 32, batch_size: 32, learning_rate: 0.05, max_epochs: 2, horizontal_flip: false}}
    jobs: {{images_per_shard: 500, shards_per_embedding: 1}}
"""


@pytest.fixture(scope="module")
def results(built):
    """The study over the pictures of the small study's web as a folder."""
    pool = built.folder / "own_pool"
    pool.mkdir()
    for key, sample in images.read_shard(built.folder / "results/small/digits/web.tar"):
        (pool / f"{key}.png").write_bytes(sample["png"])
        (pool / f"{key}.txt").write_bytes(sample["txt"])
    (built.folder / "own.yaml").write_text(STUDY.format(methods=", ".join(METHODS)))
    code, output = built.snakemake("results/own/tables/scaling.csv", "--configfile", "own.yaml", "--cores", "2")
    assert code == 0, output
    return built.folder / "results" / "own"


def test_the_folder_is_packed_and_embedded_in_shards(results):
    shards = sorted((results / "pool/shards").glob("*.tar"))
    pictures = len(list((results.parents[1] / "own_pool").glob("*.png")))
    assert len(shards) == -(-pictures // 500) == len(list((results / "pool/embeddings").iterdir()))
    assert sum(len(list(images.read_shard(shard))) for shard in shards) == pictures


def test_every_variant_retrieves_and_none_downloads(results):
    chosen = {}
    for method in METHODS[1:]:
        folder = results / "retrieval" / method
        ledger = pd.concat(pd.read_parquet(folder / name) for name in ("ledger.parquet", "further/ledger.parquet"))
        used = ledger[ledger["fate"] == "used"]
        assert not used["sha256"].duplicated().any()
        chosen[method] = frozenset(zip(used["class"], used["id"], strict=True))
    assert len(set(chosen.values())) == len(chosen)  # each chooses otherwise
    assert not (results / "retrieval" / "downloads").exists()


def test_scaling_says_what_classes_that_fell_short_could_mean(results):
    table = pd.read_csv(results / "tables" / "scaling.csv")
    assert list(table["ratio"]) == [0, *[1, 3] * 4]
    assert (table["accuracy_worst"] <= table["accuracy_mean"]).all()
    test = images.read(results / "dataset" / "test.parquet")
    for row in table.itertuples():
        metrics = results / "classifier" / row.method / f"x{row.ratio:g}" / "run-1" / "metrics.json"
        tested = json.loads(metrics.read_text())["n_test"]
        gap = 100 * (1 - tested / len(test))
        assert row.accuracy_best - row.accuracy_worst == pytest.approx(gap, abs=1e-3)
        assert (row.classes < test["class"].nunique()) == (gap > 0)
