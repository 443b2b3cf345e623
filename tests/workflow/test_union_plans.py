"""What a study plans for a union: the images of its methods once, whether these are compared themselves or not."""

import pytest
import yaml

UNION = {"title": "Both", "family": "union", "start": "methods", "of": {"retrieval": 0.5, "clip_prompts": 0.5}}
COMPARED = ("classify", "summary", "audit", "hash_added", "review")


@pytest.mark.middle
def test_images_are_made_once_and_only_rows_are_compared(clone):
    tree = clone()

    def jobs(methods) -> list[tuple[str, str]]:
        study = yaml.safe_load((tree.folder / tree.study).read_text())
        study["methods"]["both"] = UNION
        study["studies"]["small"]["methods"] = methods
        (tree.folder / "mine.yaml").write_text(yaml.safe_dump(study))
        planned = tree.plan("results/small/report.html", "--configfile", "mine.yaml")
        methods = [text.partition("method=")[2].partition(",")[0].split() for _, text in planned]
        return sorted((rule, *method[:1]) for (rule, _), method in zip(planned, methods, strict=True))

    alone = jobs(["none", "both"])
    made = [job for job in alone if job[0] in ("retrieve", "generate", "resample", "unite")]
    assert made == [
        ("generate", "clip_prompts"), ("resample", "clip_prompts"), ("resample", "retrieval"),
        ("retrieve", "retrieval"), ("unite", "both"),
    ]  # fmt: skip
    assert [job for job in alone if job[0] in COMPARED] == sorted(
        (rule, method) for method in ("none", "both") for rule in COMPARED if method == "both" or rule in COMPARED[:2]
    )
    further = [(rule, method) for rule in COMPARED for method in UNION["of"]]
    assert jobs(["none", "both", "retrieval", "clip_prompts"]) == sorted([*alone, *further])
