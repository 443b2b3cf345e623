"""Prompts: from a class's names and a method's templates to the text that guides model or search."""

from pathlib import Path

from augbench.seeds import generator

TEMPLATES = Path("resources/templates")


def without_spaces(name: str) -> str:
    """w(n) of the paper (section 3.1): the class name stripped of white space."""
    return "".join(name.split())


def templates(conditioning: str) -> list[str]:
    """The templates of ``resources/templates/{conditioning}.txt``, one a line."""
    text = (TEMPLATES / f"{conditioning}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def fill(template: str, name: str) -> str:
    """Put a class name (all lemmas, separated by commas) into a template's {n} or {w}."""
    return template.replace("{n}", name).replace("{w}", without_spaces(name))


def draw(conditioning: str, name: str, count: int, *key: object) -> list[str]:
    """``count`` prompts with templates drawn at random with replacement (paper, section 3.1).

    ``key`` seeds the draw; the first prompts do not depend on ``count``.
    """
    choices = templates(conditioning)
    rng = generator(*key, "templates")
    return [fill(choices[int(rng.integers(len(choices)))], name) for _ in range(count)]
