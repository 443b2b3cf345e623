"""Prompts are the paper's."""

import json

import pytest
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

from augbench.study import prompts

TENCH = {
    "class": "n01440764",
    "lemmas": "tench, Tinca tinca",
    "hypernyms": "cyprinid, cyprinid fish",
    "definition": "freshwater dace-like game fish",
}


def test_simple_prompts_are_the_papers():
    shark = {"class": "n1", "lemmas": "tiger shark, Galeocerdo cuvieri"}
    computer = {"class": "n2", "lemmas": "desktop computer"}
    assert prompts.fill(prompts.templates("simple_prompt")[0], shark) == f"A photo of {shark['lemmas']}."
    assert prompts.fill(prompts.templates("simple_prompt_nows")[0], computer) == "A photo of desktopcomputer."


def test_clip_prompts_are_the_80_templates():
    about = {"class": "n1", "lemmas": "tench"}
    ours = [prompts.fill(template, about) for template in prompts.templates("clip_prompts")]
    assert ours == [template("tench") for template in OPENAI_IMAGENET_TEMPLATES]


def test_templates_are_drawn_with_replacement_and_reproducibly():
    key = (1, "clip_prompts", "base", "n01")
    drawn = prompts.draw("clip_prompts", "random", TENCH, 200, *key)
    assert drawn[:50] == prompts.draw("clip_prompts", "random", TENCH, 50, *key)
    assert 80 * 0.8 < len(set(drawn)) <= 80
    assert drawn != prompts.draw("clip_prompts", "random", TENCH, 200, 2, *key[1:])


def test_sariyildiz_prompts_have_six_categories_in_equal_shares():
    """c; c, h; multiple c, h; multiple different c, h; c, d; c, h inside b (Sariyildiz et al.)."""
    drawn = prompts.draw("sariyildiz_prompts", "equal", TENCH, 390, 1, "sariyildiz_prompts", "base", "n01")
    c, h, d = (TENCH[key] for key in ("lemmas", "hypernyms", "definition"))
    fixed = [c, f"{c}, {h}", f"multiple {c}, {h}", f"multiple different {c}, {h}", f"{c}, {d}"]
    assert [drawn.count(prompt) for prompt in fixed] == [65] * 5
    inside = [prompt.removeprefix(f"{c}, {h} inside ") for prompt in drawn if " inside " in prompt]
    places = prompts.backgrounds()
    assert len(inside) == 65
    assert set(inside) <= set(places)
    assert len(set(inside)) > 45  # drawn at random from 365
    assert len(places) == 365


def test_a_class_without_hypernyms_or_definition_gets_prompts_without_them():
    drawn = prompts.draw("sariyildiz_prompts", "equal", {"class": "owl", "lemmas": "owl"}, 6, 1)
    assert drawn[:5] == ["owl", "owl", "multiple owl", "multiple different owl", "owl"]
    assert drawn[5].startswith("owl inside ")


def test_a_template_that_cannot_go_without_is_left_out_for_the_class_that_lacks_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    templates = tmp_path / "resources" / "templates"
    templates.mkdir(parents=True)
    (templates / "mine.txt").write_text("a {n}\na {n}, {h}\na {h} called {n}\n{n}: {d}\n")
    owl = {"class": "owl", "lemmas": "owl", "definition": "a bird"}
    assert prompts.draw("mine", "equal", owl, 3, 1) == ["a owl", "a owl", "owl: a bird"]
    assert prompts.lacking("mine", owl) == ["hypernyms"]
    assert prompts.lacking("mine", TENCH) == []
    assert len(prompts.usable("mine", TENCH)) == 4
    (templates / "mine.txt").write_text("a {h} called {n}\n")
    with pytest.raises(ValueError, match="every template of mine needs hypernyms, which the class owl does not have"):
        prompts.draw("mine", "equal", owl, 3, 1)


def test_no_conditioning_is_the_empty_prompt():
    assert prompts.draw(None, "random", TENCH, 2) == ["", ""]


def test_images_are_spread_over_clusters_by_their_sizes():
    chosen = prompts.allocate(12, [3, 1, 2])
    assert [chosen.count(cluster) for cluster in range(3)] == [6, 2, 4]
    assert prompts.allocate(6, [3, 1, 2]) == chosen[:6]
    assert sorted(chosen[:6]) == [0, 0, 0, 1, 2, 2]


def written(folder, content) -> str:
    path = folder / "prompts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_prompts_of_each_class_are_drawn_by_its_key_or_one_of_its_names(tmp_path):
    owl = {"class": "owl", "lemmas": "owl"}
    file = written(tmp_path, {"Tinca Tinca": ["a tench", "a green fish"], "owl": ["an owl at night"]})
    assert prompts.draw(file, "equal", TENCH, 3, 1) == ["a tench", "a green fish", "a tench"]
    assert set(prompts.draw(file, "random", TENCH, 20, 1)) == {"a tench", "a green fish"}
    assert prompts.usable(file, owl) == ["an owl at night"] and prompts.lacking(file, owl) == []
    prompts.check_classes(file, [TENCH, owl])
    before = prompts.digest(file)
    written(tmp_path, {"tench": ["an owl at night"], "owl": ["a tench", "a green fish"]})
    assert prompts.digest(file) != before and prompts.usable(file, TENCH) == ["an owl at night"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"tench": ["a tench"]}, "has no prompts of the class 'owl'"),
        ({"tench": ["a"], "owl": ["b"], "tenche": ["c"]}, "has prompts of 'tenche', which is no class of .*'tench'"),
        ({"tench": ["a"], "owl": ["b"], "zebra": ["c"]}, "has prompts of 'zebra', .*; take it away"),
        ({"tench": ["a"], "owl": []}, "the class 'owl' has no prompt; write one"),
        ({"tench": "a", "owl": ["b"]}, "the prompts of 'tench' are no list of texts"),
        ({"tench": ["a"], "owl": [" "]}, "the prompts of 'owl' are no list of texts"),
        (["a"], "holds no prompts by class"),
        ("{", "is no JSON in UTF-8"),
    ],
)
def test_a_file_of_prompts_that_does_not_fit_is_refused(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        prompts.check_classes(written(tmp_path, content), [TENCH, {"class": "owl", "lemmas": "owl"}])
