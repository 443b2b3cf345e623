"""Rows of unions: shares of methods, also of unions in unions, and one sentence for what cannot be."""

from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from augbench.study import config, unions

TABLE = yaml.safe_load(Path("config/methods.yaml").read_text())["methods"]


def union(**of) -> dict:
    return {"title": "U", "family": "union", "start": "methods", "of": of}


def parsed(rows: dict, **sections) -> config.Config:
    study = {"methods": ["none"], "target": {"reader": "folder", "path": "birds"}} | sections
    return config.parse({"methods": TABLE | rows, "studies": {"birds": study}})


def refused(rows: dict, **sections) -> str:
    with pytest.raises(config.ConfigError) as error:
        parsed(rows, **sections)
    return str(error.value)


def test_a_union_of_unions_takes_shares_of_their_methods():
    inner, outer = union(retrieval=0.3, clip_prompts=0.7), union(inner=0.5, clip_prompts=0.1, affine=0.4)
    rows = parsed({"inner": inner, "outer": outer}).methods
    shares = unions.shares_of("outer", rows)
    assert shares == {"retrieval": Fraction(3, 20), "clip_prompts": Fraction(9, 20), "affine": Fraction(2, 5)}
    assert list(shares) == ["retrieval", "clip_prompts", "affine"] and unions.shares_of("retrieval", rows) == {}
    assert unions.with_parts(["none", "outer", "affine"], rows) == [
        "none",
        "outer",
        "affine",
        "retrieval",
        "clip_prompts",
    ]


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"u": union(retrieval=0.5, clip_prompts=0.6)}, "the shares of a union sum to 1; those of `of` sum to 1.1"),
        (
            {"u": union(retrieval=0.5, clip_prompt=0.5)},
            "there is no method 'clip_prompt', did you mean 'clip_prompts'?",
        ),
        ({"u": union(retrieval=0.5, none=0.5)}, "methods.u.of: none adds no images, of which there are no shares"),
        ({"u": union(retrieval=0.5, more_real=0.5)}, "methods.u.of: more_real adds all further real images"),
        ({"u": union(retrieval=0.5, u=0.5)}, "methods.u.of: u is a union of itself; name other methods"),
        (
            {"u": union(retrieval=0.5, v=0.5), "v": union(w=1.0), "w": union(u=1.0)},
            "u is a union of itself, by way of v, w; name other methods",
        ),
        ({"u": union(retrieval=1.5)}, "methods.u.of.retrieval: Input should be less than or equal to 1"),
        ({"u": union(retrieval=0, clip_prompts=1)}, "methods.u.of.retrieval: Input should be greater than 0"),
        ({"u": union()}, "start: methods needs of, e.g. `of: {retrieval: 0.5, clip_prompts: 0.5}`"),
        (
            {"u": union(retrieval=1) | {"start": "noise", "conditioning": "simple_prompt"}},
            "start: noise goes without of",
        ),
        ({"u": union(retrieval=1) | {"conditioning": "simple_prompt"}}, "start: methods goes without conditioning"),
        ({"u": union(retrieval=1) | {"strength": 0.5}}, "start: methods goes without strength"),
    ],
)
def test_what_is_no_union_is_a_sentence(methods, sentence):
    message = refused(methods)
    assert sentence in message and len(message.splitlines()) == 1


def test_a_study_needs_what_the_methods_of_its_unions_need():
    both, clip = ["retrieval_and_clip_prompts"], {"model": "ViT-B/32"}
    assert "its methods need the section `clip`" in refused({}, methods=both)
    searched = {"clip": clip, "pool": {"source": "index", "path": "pool"}}
    assert "its methods need the section `backbone`" in refused({}, methods=both, **searched)
    assert "say where the images of affine lie" in refused({"u": union(affine=1)}, methods=["u"])
    mine = {"u": union(affine=0.5, other=0.5), "other": TABLE["affine"]}
    study = parsed(mine, methods=["u"], added={"affine": "data", "other": "more"}).studies["birds"]
    assert set(study.added) == {"affine", "other"}


def test_a_union_is_measured_at_further_ratios_for_which_its_methods_have_images():
    sections = {"methods": ["none", "u", "affine"], "added": {"affine": "data", "other": "more"}}
    sections |= {"scaling": {"methods": ["u"], "ratios": [2, 0.5]}}
    both = parsed({"u": union(affine=0.5, other=0.5), "other": TABLE["affine"]}, **sections)
    study = both.studies["birds"]
    assert study.wanted_ratios("affine") == [1] and both.wanted_ratios(study, "affine") == [1, 0.5, 2]
    assert both.wanted_ratios(study, "other") == both.wanted_ratios(study, "u") == [1, 0.5, 2]


def test_thirds_are_shares():
    assert parsed({"u": union(retrieval=0.333333, clip_prompts=0.333333, affine=0.333333)})
    assert "sum to 0.999" in refused({"u": union(retrieval=0.333, clip_prompts=0.333, affine=0.333)})
