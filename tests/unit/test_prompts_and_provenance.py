"""Prompts are the paper's; code digests change with the code a rule uses and with no other."""

import pytest
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

from augbench import prompts, provenance


def test_simple_prompts_are_the_papers():
    shark, computer = "tiger shark, Galeocerdo cuvieri", "desktop computer"
    assert prompts.fill(prompts.templates("simple_prompt")[0], shark) == f"A photo of {shark}."
    assert prompts.fill(prompts.templates("simple_prompt_nows")[0], computer) == "A photo of desktopcomputer."


def test_clip_prompts_are_the_80_templates():
    ours = [prompts.fill(template, "tench") for template in prompts.templates("clip_prompts")]
    assert ours == [template("tench") for template in OPENAI_IMAGENET_TEMPLATES]


def test_templates_are_drawn_with_replacement_and_reproducibly():
    drawn = prompts.draw("clip_prompts", "tench", 200, 1, "clip_prompts", "base", "n01")
    assert drawn[:50] == prompts.draw("clip_prompts", "tench", 50, 1, "clip_prompts", "base", "n01")
    assert 80 * 0.8 < len(set(drawn)) <= 80
    assert drawn != prompts.draw("clip_prompts", "tench", 200, 2, "clip_prompts", "base", "n01")


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("def f():\n    from augbench.b import g\n")
    (tmp_path / "b.py").write_text("import augbench.c\n")
    (tmp_path / "c.py").write_text("")
    (tmp_path / "d.py").write_text("from augbench import a, c\n")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    return tmp_path


def test_imports_are_followed_transitively_also_inside_functions(package):
    assert provenance.modules_of("a") == ["a", "b", "c"]
    assert provenance.modules_of("d") == ["a", "b", "c", "d"]


def test_digest_changes_with_what_is_used_only(package):
    before = {name: provenance.digest(name) for name in "abcd"}
    (package / "b.py").write_text("import augbench.c  # edited\n")
    after = {name: provenance.digest(name) for name in "abcd"}
    assert [name for name in "abcd" if before[name] != after[name]] == ["a", "b", "d"]
