"""What jobs cost follows from their work: more images, candidates, steps or fewer jobs take longer."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from augbench.jobs.job_costs import JobCosts, rows
from augbench.jobs.study_files import StudyFiles
from augbench.study import config

ROWS = yaml.safe_load(Path("config/methods.yaml").read_text())
TUNED = "ft_conditioning"  # with five candidates


def costs(**sections) -> JobCosts:
    study = {"methods": ["none", "clip_prompts", TUNED, "retrieval"], "target": {"reader": "digits"}}
    study |= {"clip": {"model": "ViT-B/32"}, "backbone": {"model": "owner/name"}, "pool": {"source": "digits"}}
    return JobCosts(StudyFiles(config.parse(ROWS | {"studies": {"s": study | sections}}), "s"))


@pytest.fixture
def classes_csv(tmp_path):
    """Two classes that take part, of 10 and 20 training images, and one that does not."""
    file = tmp_path / "classes.csv"
    columns = {"class": list("abc"), "lemmas": list("abc"), "hypernyms": "", "definition": ""}
    pd.DataFrame(columns | {"train": [10, 20, 40], "excluded": ["", "", "too few"]}).to_csv(file, index=False)
    return str(file)


def test_images_of_a_job_by_what_they_are_for(classes_csv):
    one = costs(generate={"times": 3}, scaling={"methods": ["clip_prompts"], "ratios": [5]})
    counts = {purpose: one.images_to_generate("clip_prompts", purpose, classes_csv) for purpose in ("base", "further")}
    assert counts == {"base": 3 * 30, "further": (5 - 3) * 30}
    assert one.images_to_generate(TUNED, "screen", classes_csv) == len(one.files.methods[TUNED].candidates) * 30
    several = costs(generate={"times": 3}, jobs={"classes_per_generation": 2})
    assert several.images_to_generate("clip_prompts", "base", classes_csv) == 3 * 30 / 5  # ten digits, two in each job


def test_counts_follow_a_changed_class_table(classes_csv):
    one = costs()
    before = one.images_to_generate("clip_prompts", "base", classes_csv)
    table = pd.read_csv(classes_csv, keep_default_na=False).assign(train=1000)
    table.to_csv(classes_csv, index=False)
    assert one.images_to_generate("clip_prompts", "base", classes_csv) > before


def test_a_training_takes_its_processes_cores_and_shares_its_work():
    one, four = costs(), costs(classifier={"processes": 4, "threads": 2, "workers": 3}, finetune={"processes": 2})
    assert (four.classifier_cores, four.finetuning_cores) == (4 * (2 + 3), 2)
    assert one.classifier_cores == 1 + 4  # that read ahead what does not fit into memory
    assert costs(classifier={"image_size": 32}).classifier_cores == 1
    assert four.classifier_seconds(1000) == pytest.approx(one.classifier_seconds(1000) / 4)
    assert four.finetuning_seconds(TUNED, 1000) == pytest.approx(one.finetuning_seconds(TUNED, 1000) / 2)


def test_a_screening_trains_a_classifier_for_each_of_its_candidates():
    all_in_one, single = costs(), costs(jobs={"candidates_per_screening": 1})
    assert all_in_one.screening_seconds(TUNED, 100) == pytest.approx(5 * single.screening_seconds(TUNED, 100))
    assert single.screening_seconds(TUNED, 100) == pytest.approx(single.classifier_seconds(200))


def test_work_that_takes_all_cores_takes_one_where_the_study_is_small():
    assert (costs().cores, costs(jobs={"classes_per_generation": 1}).cores) == (1, 2)


def test_an_index_takes_twice_its_memory_while_it_is_built():
    assert costs(pool={"source": "digits", "memory": "4G"}).index_bytes == 8e9
    assert costs(pool={"source": "digits", "memory": "500M"}).index_bytes == 1e9


def test_rows_of_tables_that_are_there_and_an_error_that_snakemake_knows(tmp_path):
    pd.DataFrame({"a": [1, 2]}).to_parquet(tmp_path / "two.parquet")
    assert rows(str(tmp_path / "two.parquet"), str(tmp_path / "two.parquet")) == 4
    with pytest.raises(FileNotFoundError):
        rows(str(tmp_path / "none.parquet"))
