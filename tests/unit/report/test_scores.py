"""Scores of planted images: a wrong class, copies of training and of test images, one image a hundred times."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from augbench import images
from augbench.audit import hashes as image_hashes
from augbench.dataset import filtering
from augbench.images import embeddings
from augbench.report import scores
from augbench.study.scores import COLUMNS
from augbench.study.sections.filter import Filter

CLASSES = {"circle": np.array([1.0, 0, 0, 0]), "square": np.array([0, 1.0, 0, 0])}


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Images as hashes and embeddings: those of a class lie around its direction, each with a hash of its own."""

    def __init__(self):
        self.random, self.hash, self.vector = np.random.default_rng(0), {}, {}

    def add(self, name, key):
        self.hash[name] = self.random.integers(0, 2**63, dtype=np.uint64)
        self.vector[name] = unit(CLASSES[key] + 0.2 * self.random.normal(size=4))
        return {"image_id": name, "class": key, "path": name}

    def copy(self, name, key, of, bits=0):
        self.hash[name], self.vector[name] = self.hash[of] ^ np.uint64(2**bits - 1), self.vector[of]
        return {"image_id": name, "class": key, "path": name}

    def hashes(self, table):
        return np.array([self.hash[name] for name in table["image_id"]], np.uint64)

    def vectors(self, table):
        return np.stack([self.vector[name] for name in table["image_id"]])

    def confidence(self, table):
        pairs = zip(table["image_id"], table["class"], strict=True)
        return np.array([self.vector[name] @ CLASSES[key] for name, key in pairs])

    def references(self, rows):
        table = pd.DataFrame(rows)
        return scores.References(table["image_id"].to_numpy(object), self.hashes(table), self.vectors(table))


@pytest.fixture
def planted(tmp_path):
    """Scores, by image, of forty images of each class, four of a wrong class, copies and repetitions."""
    world = World()
    train = [world.add(f"train/{key}{i}", key) for key in CLASSES for i in range(20)]
    test = [world.add(f"test/{key}{i}", key) for key in CLASSES for i in range(20)]
    rows = [world.add(f"good/{key}{i}", key) for key in CLASSES for i in range(40)]
    for i in range(4):
        world.add(f"wrong/{i}", "square")
        rows.append({"image_id": f"wrong/{i}", "class": "circle", "path": ""})
    rows += [world.copy(f"of-train/{i}", "circle", f"train/circle{i}", bits=i) for i in range(3)]
    rows += [world.copy(f"of-test/{i}", "square", f"test/square{i}", bits=i) for i in range(3)]
    rows += [world.copy(f"again/{i}", "circle", "good/circle7") for i in range(100)]
    images.write(tmp_path / "images.parquet", images.table(rows))
    references = {"train": world.references(train), "held_out": world.references(test)}
    seers = scores.Seers(world.hashes, world.confidence, world.vectors, world.vectors)
    vectors = scores.ClassVectors(CLASSES, CLASSES)
    tables = scores.batches([tmp_path / "images.parquet"], None, list(CLASSES))
    scores.write(tmp_path / "scores.parquet", tables, scores.Scorer(seers, references, vectors), len(rows), "f")
    return pd.read_parquet(tmp_path / "scores.parquet").set_index("image_id", drop=False)


def named(table, prefix):
    return table[table["image_id"].str.startswith(prefix)]


def test_each_score_moves_the_right_way(planted):
    good, wrong = named(planted, "good/"), named(planted, "wrong/")
    for name in ("clip", "clip_images", "confidence"):
        assert wrong[name].max() < good[name].min()
    assert named(planted, "of-train/")["train_bits"].tolist() == [0, 1, 2]
    assert named(planted, "of-train/")["train_bits_id"].tolist() == [f"train/circle{i}" for i in range(3)]
    assert named(planted, "of-test/")["held_out_bits_id"].tolist() == [f"test/square{i}" for i in range(3)]
    assert named(planted, "of-test/")["held_out_distance"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert named(planted, "of-test/")["held_out_distance_id"].tolist() == [f"test/square{i}" for i in range(3)]
    assert (named(planted, "again/")["novelty"] == 0).all() and good["novelty"].min() > 8
    assert good[["train_bits", "held_out_bits"]].min().min() > 8


@pytest.mark.parametrize(
    ("rule", "leaks", "dropped"),
    [
        ({"by": "clip", "at_least": 0.6}, None, ("wrong/",)),
        ({"by": "confidence", "at_least": 0.6}, None, ("wrong/",)),
        ({"by": "train_bits", "at_least": 3}, None, ("of-train/",)),
        ({"by": "train_distance", "at_least": 1e-5}, None, ("of-train/",)),
        ({"by": "held_out_bits", "at_least": 3}, None, ("of-test/",)),
        ({"by": "novelty", "at_least": 1}, None, ("again/",)),
        (None, (8, None), ("of-test/",)),
        ({"by": "novelty", "at_least": 1}, (8, 1e-5), ("again/", "of-test/")),
    ],
)
def test_filters_drop_what_was_planted_and_name_each(planted, rule, leaks, dropped):
    section = Filter.model_validate(rule) if rule else None
    ledger = filtering.refused(planted, filtering.Leaks(*leaks) if leaks else None, section)
    wanted = planted["image_id"][planted["image_id"].str.startswith(dropped)]
    assert set(ledger["image_id"]) == set(wanted) and ledger["reason"].str.len().min() > 10


def test_a_killed_job_goes_on_with_the_next_batch(tmp_path):
    """The second time the first batch is not looked at again, and the table is the same as in one go."""
    world, seen = World(), []
    rows = [world.add(f"{i}", "circle") for i in range(6)]
    rows.append(world.copy("again", "circle", "1"))
    others = {"train": world.references(rows[:2])}

    def hashes(table):
        seen.extend(table["image_id"])
        if seen == ["0", "1", "2", "3"]:
            raise KeyboardInterrupt
        return world.hashes(table)

    def write(name, fingerprint, batch):
        scorer = scores.Scorer(scores.Seers(hashes, world.confidence), others, None)
        tables = (pd.DataFrame(rows[start : start + batch]) for start in range(0, 7, batch))
        scores.write(tmp_path / name / "scores.parquet", tables, scorer, 7, fingerprint)
        return pd.read_parquet(tmp_path / name / "scores.parquet")

    with pytest.raises(KeyboardInterrupt):
        write("killed", "a", 2)
    table = write("killed", "a", 2)
    assert seen == ["0", "1", "2", "3", "2", "3", "4", "5", "again"]
    assert table.equals(write("at once", "a", 7)) and table["novelty"].tolist()[-1] == 0
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["scores.parquet"]


def test_novelty_does_not_depend_on_how_many_come_at_a_time(tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    values = random.integers(0, 2**63, 60, dtype=np.uint64)
    values[30:40] = values[:10] ^ np.uint64(5)
    whole = scores.novelty(values, values[:0])
    assert whole[0] == 64 and (whole[30:40] == 2).all()
    parts = [scores.novelty(values[k : k + 7], values[:k]) for k in range(0, 60, 7)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    bits = [min(int(a ^ b).bit_count() for b in values[:i].tolist()) for i, a in enumerate(values.tolist()) if i]
    assert whole[1:].tolist() == bits


def test_images_come_in_parts_and_only_those_that_may_be_added(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "AT_A_TIME", 3)
    rows = [{"image_id": f"{i}", "class": "ab"[i % 2], "path": "x", "candidate": "cd"[i // 5]} for i in range(10)]
    images.write(tmp_path / "images.parquet", images.table(rows))
    parts = list(scores.batches([tmp_path / "images.parquet"], "d", ["a"]))
    assert [part["image_id"].tolist() for part in parts] == [["8"], ["6"]] or sum(map(len, parts)) == 2
    assert max(map(len, parts)) <= 3 and all("candidate" not in part for part in parts)
    assert sum(map(len, scores.batches([tmp_path / "images.parquet"], None, ["a", "b"]))) == 10


def test_a_study_without_clip_has_empty_columns():
    world = World()
    rows = [world.add("x", "circle"), world.add("y", "square")]
    others = world.references(rows)._replace(vectors=None)
    scorer = scores.Scorer(scores.Seers(world.hashes, world.confidence), {"train": others, "held_out": others}, None)
    table = scorer.score(pd.DataFrame(rows))
    assert table.columns.tolist() == COLUMNS and table["train_bits"].tolist() == [0, 0]
    assert table[["clip", "clip_images", "train_distance", "held_out_distance"]].isna().all(axis=None)


def test_references_are_read_from_what_the_audit_knows_of_them(tmp_path):
    rows = [{"image_id": f"{i}", "class": "a", "path": "x"} for i in range(5)]
    for name, mine in (("one", rows[:3]), ("two", rows[3:])):
        table = images.table(mine)
        images.write(tmp_path / name, table)
        values = np.array([int(row["image_id"]) for row in mine])
        image_hashes.write(tmp_path / f"{name}-hashes", table, values.astype(np.uint64))
        embeddings.write(tmp_path / f"{name}-vectors", table, np.eye(5, dtype=np.float32)[values])
    paths = [[tmp_path / f"{name}{kind}" for name in ("two", "one")] for kind in ("", "-hashes", "-vectors")]
    read = scores.References.read(*paths)
    assert read.ids.tolist() == ["3", "4", "0", "1", "2"] and read.hashes.tolist() == [3, 4, 0, 1, 2]
    assert (read.vectors == np.eye(5)[read.hashes.astype(int)]).all()
    assert scores.References.read(*paths[:2], []).vectors is None
    place, distance = scores.nearest_vector(np.eye(5, dtype=np.float32)[[1]], read.vectors)
    assert (place[0], distance[0]) == (3, 0)
    assert pq.read_schema(tmp_path / "one").names[0] == "image_id"
