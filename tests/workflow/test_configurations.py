"""Several configurations in one checkout: whatever was built before, what stands there is of the one in use.

Snakemake and the rules are the real ones; each script is replaced by one that writes a digest of its parameters and
inputs into its outputs. So a file tells whether all that led to it is of a configuration: it has the bytes that it has
where nothing else was ever built.
"""

import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.slow

STUB = """
import hashlib, json
from pathlib import Path

def digest(path):
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.name[0] != ".")).hexdigest()

facts = [dict(snakemake.params.items()), dict(snakemake.wildcards.items())]
facts.append([[str(path), digest(Path(path))] for path in snakemake.input])
head = hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest().encode()
Path(snakemake.log[0]).write_text("")
for path in map(Path, snakemake.output):
    if path.suffix == ".parquet":  # resources follow from its number of rows
        path.write_bytes(head + Path("template.parquet").read_bytes())
    elif path.suffix:
        path.write_bytes(head)
    else:
        path.mkdir(parents=True, exist_ok=True)
        path.joinpath("content").write_bytes(head)
"""


def study(methods=("none",), **changes):
    return {
        "methods": list(methods),
        "runs": 1,
        "target": {"reader": "folder", "path": "animals"},
        "dataset": {"train": 0.25, "validation": 0.25, "test": 0.25},
        "classifier": {"model": "small_cnn", "image_size": 8, "batch_size": 8, "max_epochs": 1},
    } | changes


# Of `shared`, methods, runs and seed differ; the other two are in one configuration each.
CONFIGURATIONS = {
    "a": {"one": study(), "shared": study(["none", "more_real"], runs=2)},
    "b": {"two": study(seed=5), "shared": study(runs=3, seed=1)},
}
PAGE, STUDY, PART = "results/report.html", "results/shared/report.html", "results/shared/classifier/none/x0/run-1"
TARGETS = {"page": PAGE, "study": STUDY, "part": f"{PART}/metrics.json"}
# Each configuration's targets come after some of the other one; the first run begins with nothing.
WALK = [
    ("b", "study"),
    ("a", "part"),
    ("b", "part"),
    ("a", "page"),
    ("b", "page"),
    ("a", "study"),
]


def stubbed(made, configurations):
    """A clone whose scripts write digests, with a target of tiny images and these configurations as files."""
    for script in (made.folder / "workflow" / "scripts").glob("*.py"):
        script.write_text(STUB)
    for k, key in enumerate(("cat", "dog")):
        (made.folder / "animals" / key).mkdir(parents=True)
        for i in range(12):
            file = made.folder / "animals" / key / f"{i}.png"
            Image.new("RGB", (8, 8), (255 * k, 20 * i, 100)).save(file)
            os.utime(file, (10**9, 10**9))  # the same images in each clone: their times are a parameter
    pd.DataFrame({"class": ["cat"] * 4}).to_parquet(made.folder / "template.parquet")
    for name, studies in configurations.items():
        (made.folder / f"{name}.yaml").write_text(yaml.safe_dump({"studies": studies}))
    return made


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def build(made, name, target):
    """The digest of a target after a run with a configuration."""
    code, output = made.snakemake("--cores", "2", "--quiet", "all", "--configfile", f"{name}.yaml", "--", target)
    assert code == 0, output
    return digest(made.folder / target)


@pytest.fixture(scope="module")
def clones(clone):
    """Of one state of the code: the checkout of all configurations, and one for each alone."""
    return {name: stubbed(clone(), CONFIGURATIONS) for name in ("both", *CONFIGURATIONS)}


@pytest.fixture(scope="module")
def alone(clones):
    """Configuration -> target -> what it is where nothing else was built."""
    for name in CONFIGURATIONS:
        build(clones[name], name, PAGE)
    return {
        name: {target: digest(clones[name].folder / target) for target in TARGETS.values()} for name in CONFIGURATIONS
    }


def test_the_two_configurations_differ_in_every_target(alone):
    assert not set(alone["a"].values()) & set(alone["b"].values())


def test_every_target_is_of_the_configuration_in_use(clones, alone):
    made = clones["both"]
    for name, target in WALK:
        assert build(made, name, TARGETS[target]) == alone[name][TARGETS[target]], (name, target)
        print("as where nothing else was built:", name, TARGETS[target], flush=True)


SWAPPED = {
    "digits_target": ({"digits": {"test": 500, "web_scans": 600}}, {"digits": {"test": 600, "web_scans": 500}}),
    "seed": ({"seed": 1}, {"seed": 2}),
}


@pytest.mark.parametrize("kind", SWAPPED)
def test_parameters_that_change_places_are_noticed(clone, kind):
    """Snakemake compares the values of parameters as a set, without their names."""
    both = [study(target={"reader": "digits"}, **changes) for changes in SWAPPED[kind]]
    made = stubbed(clone(), {name: {"s": each} for name, each in zip("ab", both, strict=True)})
    target = "results/s/digits/classes.csv"
    first = build(made, "a", target)
    assert build(made, "b", target) != first
    assert build(made, "a", target) == first


def test_a_plan_says_nothing_to_be_done_only_for_what_was_built_last(clone):
    made = stubbed(clone(), {name: {"s": study(seed=k)} for k, name in enumerate("ab")})
    target = str(Path("results/s/target/images.parquet"))
    build(made, "a", target)
    for name, planned in {"a": False, "b": True}.items():
        code, output = made.snakemake("-n", "--configfile", f"{name}.yaml", "--", target)
        assert code == 0 and ("Nothing to be done" in output) != planned, output
