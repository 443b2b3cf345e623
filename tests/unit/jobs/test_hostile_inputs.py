"""Whatever a user's files and configuration hold, a run goes on or says in one sentence why not."""

import json
from collections import Counter

import hostile
import looks_like
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augbench import images
from augbench.dataset import references, splits
from augbench.retrieval import embedding, guard, pools
from augbench.study import config
from augbench.study.sources import SOURCES

TRIED: dict[str, Counter] = {}


@pytest.fixture(scope="module", autouse=True)
def figure():
    """Prints how the inputs of each family ended, with ``pytest -s``."""
    yield
    print(f"\n{'family':<16}{'tried':>7}{'succeeded':>11}{'one sentence':>14}")
    total: Counter = sum(TRIED.values(), Counter())
    for family, ends in [*TRIED.items(), ("all", total)]:
        print(f"{family:<16}{ends.total():>7}{ends['succeeded']:>11}{ends['sentence']:>14}")


@pytest.mark.middle  # takes seconds
@pytest.mark.filterwarnings("ignore")  # Pillow's own, of the damage
@pytest.mark.parametrize("family", hostile.FAMILIES)
def test_hostile_inputs_end_in_success_or_in_one_sentence(family, tmp_path, capsys):
    ends = TRIED.setdefault(family, Counter())
    wrong = []
    for number in range(hostile.FAMILIES[family][0]):
        results = tmp_path / str(number) / "results"
        results.mkdir(parents=True)
        steps = hostile.generated(family, number, results.parent, results)
        try:
            with hostile.nothing_outside(results.parent, results):
                said = [hostile.ending(step, capsys) for step in steps]
        except (AssertionError, hostile.TooLong) as error:
            wrong.append(f"{family} {number}: {error}")
            continue
        ends["sentence" if any(said) else "succeeded"] += 1
    assert not wrong, "\n\n".join(wrong)


# --- what people reported -------------------------------------------------------------------------------


def fill(folder, counts):
    for key, count in counts.items():
        for number in range(count):
            hostile.put(folder / key / f"{number}.png", hostile.picture(number))
    return {"reader": "folder", "path": str(folder)}


def table(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def urls(folder, lengths, size=10):
    """The rows of all shards of lists of URLs of these lengths."""
    for number, length in enumerate(lengths):
        table(folder / f"{number}.parquet", URL=pa.array([f"http://x/{i}" for i in range(length)], pa.string()))
    SOURCES["urls"].check(folder)
    files = SOURCES["urls"].files(folder)
    parts = [pools.url_list(files, start, start + size) for start in range(0, sum(lengths), size)]
    assert sum(map(len, parts)) == sum(lengths)


def shard(folder, members):
    found = embedding._copy_for_clip(hostile.tar(folder / "0.tar", members), folder / "results" / "copy.tar")
    return list(found["caption"])


def index(folder, count=6, width=512, **columns):
    hostile.put(folder / "index" / "image.index", hostile.faiss_head(count, width))
    table(folder / "index" / "metadata" / "0.parquet", **columns)
    sections = {"methods": ["none", "retrieval"], "backbone": {"model": "owner/name"}, "clip": {"model": "ViT-B/32"}}
    sections |= {"pool": {"source": "index", "path": str(folder / "index")}, "retrieval": {"min_aesthetic": None}}
    return plan(folder, fill(folder / "data", {"cat": 9, "dog": 9}), **sections)


def plan(folder, given, **sections):
    return hostile.plan(hostile.study(given, **sections), folder / "results")


def split(given):
    return splits.split(config.Target(**given), config.Dataset(), 0)


def backbone(folder, model):
    given = fill(folder / "data", {"cat": 9, "dog": 9})
    return plan(folder, given, methods=["none", "simple_prompt"], backbone={"model": str(model)})


def pipeline(folder, parts, weights="diffusion_pytorch_model.safetensors"):
    """A diffusers folder with some parts, as far as a plan looks at it."""
    for part in parts or looks_like.PARTS:
        for name in ("config.json", looks_like.DESCRIBED.get(part, weights)):
            hostile.put(folder / part / name, b"{}")
    hostile.put(folder / "model_index.json", json.dumps(looks_like.index()).encode())
    return folder


def listed(folder, data, name="list.csv"):
    for number in range(20):
        hostile.put(folder / "a" / f"{number}.png", hostile.picture(number))
    hostile.put(folder / name, data)
    return {"reader": "list", "path": str(folder / name)}


def rows(*classes):
    return "".join(f"a/{number}.png,{classes[number % len(classes)]}\n" for number in range(20))


def link(name, goal):
    name.parent.mkdir(parents=True, exist_ok=True)
    name.symlink_to(goal)


def damaged_references(folder):
    hostile.put(folder / "more" / "cut.png", hostile.picture(mode="RGB")[:40])
    hostile.put(folder / "more" / "._000.jpg", b"Mac")
    assert references.folder_table(folder / "more", "skip").empty


def grey_and_transparent():
    grey = hostile.picture(0, mode="L", transparency=0)
    assert images.grey(grey).tobytes() == images.decode(grey).convert("L").tobytes() == b"\xff" * 30


def linked(folder):
    given = fill(folder / "data", {"cat": 9, "dog": 9})
    link(folder / "data" / "cat" / "self", ".")
    link(folder / "data" / "cat" / "more", folder / "more")
    fill(folder, {"more": 4})
    assert len(split(given)) == 22 and len(SOURCES["folder"].files(folder / "data")) == 22


PNG = hostile.picture()
WITHOUT_CHECKER = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
TEN = {"cat": 9, "dog": 9}
CASES = {  # of real users: what it is -> what is done with it in a folder, and what is said; empty: it goes on
    "urls-short, 12 rows": (lambda at: urls(at / "urls", [12]), ""),
    "urls-short, 15 rows by 10 in two files": (lambda at: urls(at / "urls", [15, 3]), ""),
    "urls-short, no rows": (lambda at: urls(at / "urls", [0]), "has no rows"),
    "empty-shard, captions only": (lambda at: shard(at, [("0.txt", b"words")]), ""),
    "empty-shard, damaged pictures only": (lambda at: shard(at, [("0.jpg", b"x"), ("1.png", PNG[:50])]), ""),
    "no-safety-checker": (lambda at: backbone(at, pipeline(at / "sd", WITHOUT_CHECKER)), "has no safety_checker"),
    "split-names": (lambda at: plan(at, fill(at / "d", {"Training/a": 9, "Training/b": 9, "TEST/a": 3})), ""),
    "flat-test": (lambda at: plan(at, fill(at / "d", {"train/a": 9, "train/b": 9, "test": 3})), "no class folders"),
    "flat-test, no validation": (
        lambda at: plan(at, fill(at / "d", TEN), dataset={"validation": 0}),
        "leaves no validation images",
    ),
    "checkpoints": (lambda at: plan(at, fill(at / "d", TEN | {"cat/.ipynb_checkpoints": 3})), ""),
    "na-class": (lambda at: plan(at, listed(at, f"path,class\n{rows('NA', 'None', 'null', 'SE')}".encode())), ""),
    "missing-file": (lambda at: plan(at, listed(at, b"path,class\ngone.png,a\na/1.png,b\n")), "there is no file"),
    "missing-file, a dangling link": (
        lambda at: (given := fill(at / "d", TEN), link(at / "d" / "cat" / "x.png", "gone"), split(given)),
        "a link that leads nowhere",
    ),
    "missing-file, in a pool": (
        lambda at: (link(at / "d" / "x.png", "gone"), pools.states(SOURCES["folder"].files(at / "d"))),
        "",
    ),
    "local-index": (lambda at: index(at, image_path=["x"] * 6), "has no addresses"),
    "index-dim": (lambda at: index(at, width=32, url=["x"] * 6), "has vectors of width 32"),
    "index-rows": (lambda at: index(at, count=50, url=["x"] * 30), "50 vectors and 30 rows"),
    "metadata-schemas": (
        lambda at: (table(at / "index" / "metadata" / "1.parquet", url=["x"], caption=[None]),
                    index(at, count=7, url=["x"] * 6, caption=["y"] * 6, aesthetic=[5.0] * 6)),
        "",
    ),
    "list-captions": (
        lambda at: SOURCES["urls"].check(table(at / "a.parquet", url=["x"], caption=[["y"]])),
        "",
    ),
    "list-not-parquet": (
        lambda at: (hostile.put(at / "urls" / "a.parquet", hostile.POINTER), SOURCES["urls"].check(at / "urls")),
        "Git LFS pointer",
    ),
    "list-not-parquet, a column twice": (
        lambda at: (pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 2, ["url", "url"]), at / "a.parquet"),
                    SOURCES["urls"].check(at / "a.parquet")),
        "has several columns 'url'",
    ),
    "wds-names": (lambda at: shard(at, [("._0.jpg", b"Mac"), ("./train.v2/0.JPG", PNG), ("train.v2/0.txt", b"a")]), ""),
    "train-class": (lambda at: plan(at, fill(at / "d", {"bus": 9, "car": 9, "train": 9, "truck": 9})), ""),
    "train-class, two classes": (lambda at: plan(at, fill(at / "d", {"train": 9, "truck": 9})), "`folders: classes`"),
    "extensions": (
        lambda at: (hostile.put(at / "d" / "cat" / "x.jfif", PNG), plan(at, fill(at / "d", TEN | {"cat/b.ppm": 2}))),
        "",
    ),
    "backbone-path": (lambda at: backbone(at, at / "gone"), "there is no folder"),
    "backbone-path, one file": (
        lambda at: (hostile.put(at / "x.safetensors", b"x"), backbone(at, at / "x.safetensors")),
        "is a file; give the backbone as a folder",
    ),
    "fp16-variant": (
        lambda at: backbone(at, pipeline(at / "sd", None, "diffusion_pytorch_model.fp16.safetensors")),
        "fp16.safetensors only",
    ),
    "cut-shard": (
        lambda at: (hostile.put(at / "cut.tar", bytes(700)), SOURCES["shards"].check(at)),
        "cut.tar cannot be read",
    ),
    "non-utf8-names": (
        lambda at: (hostile.put(at / "d" / "cat" / "\udce9.png", PNG), split(fill(at / "d", TEN))),
        r"\xe9.png is not UTF-8",
    ),
    "non-utf8-names, a class": (lambda at: plan(at, fill(at / "d", TEN | {"\udce9": 9})), r"\xe9 is not UTF-8"),
    "audit-reference": (damaged_references, ""),
    "url-spelling": (
        lambda at: [guard.spelt(url) for url in (" http://x/é a", "//host/b", "http://\ud800", "http://[", "")],
        "",
    ),
    "grey-trns-hash": (lambda at: grey_and_transparent(), ""),
    "csv-encoding": (
        lambda at: plan(at, listed(at, "path,class\na/1.png,caf\xe9\n".encode("cp1252"))),
        "is not UTF-8: line 2",
    ),
    "caption-encoding": (lambda at: shard(at, [("0.png", PNG), ("0.txt", "é".encode("utf-16"))]), ""),
    "linked-subfolder": (linked, ""),
    "symbols": (
        lambda at: plan(at, fill(at / "d", {"-": 9, "dog": 9}), methods=["none", "simple_prompt"],
                        backbone={"model": "owner/name"}),
        "leaves no name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_people_reported_ends_in_success_or_in_one_sentence(case, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    run, expected = CASES[case]
    sentence = hostile.ending(lambda: run(tmp_path), capsys)
    assert expected in sentence if expected else sentence == ""
