"""The workflow works from any folder: by its path, and as a module of another workflow."""

import subprocess
import sys

import pytest
import yaml
from clones import PLANNER, ROOT, SMALL

MODULE = f"""
configfile: "mine.yaml"

rule count:
    input: "results/small/target/images.parquet"
    output: "counts.txt"
    params: first=1, second=2, third=3
    run: open(output[0], "w").write(input[0])

module augbench:
    snakefile: "{ROOT}/Snakefile"
    config: config["augbench"]

use rule * from augbench

onstart: augbench.onstart()
onsuccess: augbench.onsuccess()

print("parameters:", *rules.count.params.keys(), *rules.split_target.params.keys())
"""


def snakemake(folder, *arguments, program=("-c", PLANNER)):
    done = run(folder, *arguments, program=program)
    assert done.returncode == 0, done.stdout
    return done.stdout


def run(folder, *arguments, program=("-c", PLANNER)):
    return subprocess.run(
        [sys.executable, *program, "--cores", "2", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )


@pytest.fixture
def own_workflow(tmp_path):
    """An empty folder with a workflow that takes augbench as a module, and the configuration of a small study."""
    small = yaml.safe_load((ROOT / SMALL).read_text())
    small["studies"]["small"]["methods"] = ["none"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"augbench": small}))
    (tmp_path / "Snakefile").write_text(MODULE)
    return tmp_path


@pytest.mark.middle
def test_the_digits_study_is_planned_in_an_empty_folder(tmp_path):
    said = snakemake(ROOT, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--dry-run")
    assert "rule report_page" in said and "study=digits" in said
    assert not any(file.suffix == ".parquet" for file in tmp_path.rglob("*"))


@pytest.mark.middle
def test_a_configuration_of_the_folder_goes_before_the_default_study(tmp_path):
    (tmp_path / "config").mkdir()
    study = yaml.safe_load((ROOT / SMALL).read_text())["studies"]["small"] | {"methods": ["mine"]}
    mine = {"title": "Mine", "family": "prompting", "conditioning": "mine", "start": "noise"}
    raw = {"methods": {"mine": mine}, "studies": {"own": study}}
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "resources" / "templates").mkdir(parents=True)
    (tmp_path / "resources" / "templates" / "mine.txt").write_text("a {n}\n")
    said = snakemake(tmp_path, "--snakefile", str(ROOT / "Snakefile"), "--dry-run", "results/own/summary/mine.json")
    assert "method=mine" in said and "study=own" in said


@pytest.mark.middle
def test_as_a_module_its_rules_are_planned_and_others_are_left_alone(own_workflow):
    said = snakemake(own_workflow, "--dry-run", "counts.txt")
    assert "rule count" in said and "rule split_target" in said
    assert "parameters: first second third target dataset seed data code named" in said


@pytest.mark.middle
@pytest.mark.parametrize("statement", ['prefix: "sub"', 'replace_prefix: {"results/": "sub/"}'])
def test_a_prefix_of_the_module_is_refused(own_workflow, statement):
    text = MODULE.replace('    config: config["augbench"]', f'    config: config["augbench"]\n    {statement}')
    (own_workflow / "Snakefile").write_text(text)
    done = run(own_workflow, "--dry-run", "counts.txt")
    assert done.returncode and "augbench writes into results/: leave out `prefix` or `replace_prefix`" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_as_a_module_it_builds_a_method(own_workflow):
    target = "results/small/classifier/none/x0/run-1/metrics.json"
    snakemake(own_workflow, target, "counts.txt", program=("-m", "snakemake"))
    assert (own_workflow / target).is_file() and (own_workflow / "counts.txt").is_file()
    assert "finished" in (own_workflow / "results" / "small" / "status.html").read_text()
    assert "Nothing to be done" in snakemake(own_workflow, target, "counts.txt", program=("-m", "snakemake"))
