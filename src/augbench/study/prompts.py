"""Prompts: from a class's names and a method's templates to the text that guides model or search."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from augbench.core import package_data
from augbench.core.seeds import generator

TEMPLATES = "templates"  # folder of resources, see core.package_data
BACKGROUNDS = "backgrounds.txt"
OPTIONAL = ", {h}", ", {d}"  # left out for a class without hypernyms or definition
NEEDED = {"{h}": "hypernyms", "{d}": "definition"}  # what a class may lack


def without_spaces(name: str) -> str:
    """w(n) of the paper (section 3.1): the class name stripped of white space."""
    return "".join(name.split())


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def templates(conditioning: str) -> list[str]:
    """The templates of ``resources/templates/{conditioning}.txt``, one a line."""
    return lines(template_file(conditioning))


def template_file(conditioning: str) -> Path:
    """The user's file of templates of this name, or else the package's."""
    return package_data.own_or_bundled(f"{TEMPLATES}/{conditioning}.txt")


def backgrounds() -> list[str]:
    """Places that may follow a class name, of the user's ``resources/backgrounds.txt``, or else the package's."""
    return lines(package_data.own_or_bundled(BACKGROUNDS))


def digest(conditioning: str | None) -> str:
    """SHA-256 (16 hex digits) of all that prompts are made from, beside the classes; empty for none."""
    if conditioning is None:
        return ""
    texts = templates(conditioning)
    if any("{b}" in text for text in texts):
        texts = texts + backgrounds()
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def uses_pseudo_word(conditioning: str) -> bool:
    """Whether the templates have a place for a learned pseudo-word."""
    return any("{p}" in template for template in templates(conditioning))


def pseudo_word(key: str) -> str:
    """How the learned word of a class is written in prompts."""
    return f"<{key}>"


def fill(template: str, class_info: Mapping[str, str], background: str = "") -> str:
    """Put what is known of a class into a template.

    ``class_info`` has ``class`` (key), ``lemmas`` (all names, separated by commas) and, where known,
    ``hypernyms`` and ``definition``. In templates {n} is the class name, {w} the name without white space,
    {h} hypernyms, {d} definition, {b} a background, {p} the learned pseudo-word.
    """
    for part in OPTIONAL:
        if not class_info.get(NEEDED[part[2:]]):
            template = template.replace(part, "")
    words = {
        "{n}": class_info["lemmas"],
        "{w}": without_spaces(class_info["lemmas"]),
        "{h}": class_info.get("hypernyms", ""),
        "{d}": class_info.get("definition", ""),
        "{b}": background,
        "{p}": pseudo_word(class_info["class"]),
    }
    for place, word in words.items():
        template = template.replace(place, word)
    return template


def lacking(conditioning: str | None, class_info: Mapping[str, str]) -> list[str]:
    """What the templates of a conditioning ask for and a class does not have: hypernyms, definition."""
    texts = templates(conditioning) if conditioning else []
    return [word for place, word in NEEDED.items() if any(place in text for text in texts) and not class_info.get(word)]


def usable(conditioning: str, class_info: Mapping[str, str]) -> list[str]:
    """The templates that can be filled in for a class: without those that need, elsewhere than as a further part of a
    list, hypernyms or a definition that the class does not have. Raises ValueError when none is left."""
    missing = [place for place, word in NEEDED.items() if not class_info.get(word)]

    def left(text: str) -> str:
        for part in OPTIONAL:
            text = text.replace(part, "")
        return text

    fitting = [text for text in templates(conditioning) if not any(place in left(text) for place in missing)]
    if not fitting:
        words = " or ".join(NEEDED[place] for place in missing)
        raise ValueError(
            f"every template of {conditioning} needs {words}, which the class {class_info['class']} does not have"
        )
    return fitting


def draw(conditioning: str | None, how: str, class_info: Mapping[str, str], count: int, *key: object) -> list[str]:
    """``count`` prompts for a class (paper, section 3.1).

    ``how`` is ``random``, templates drawn with replacement, or ``equal``, each equally often. Backgrounds are
    drawn at random. ``key`` seeds the draws; the first prompts do not depend on ``count``. Without
    ``conditioning`` the prompts are empty.
    """
    if conditioning is None:
        return [""] * count
    choices = usable(conditioning, class_info)
    rng = generator(*key, "templates")
    places = backgrounds() if any("{b}" in template for template in choices) else [""]
    prompts = []
    for i in range(count):
        template = choices[i % len(choices) if how == "equal" else int(rng.integers(len(choices)))]
        background = places[int(rng.integers(len(places)))] if "{b}" in template else ""
        prompts.append(fill(template, class_info, background))
    return prompts


def allocate(count: int, sizes: Sequence[int]) -> list[int]:
    """Which of several clusters each of ``count`` images belongs to, in proportion to the clusters' sizes.

    Any first images are spread likewise: each next image goes to the cluster furthest behind its share.
    """
    allocated = [0] * len(sizes)
    chosen = []
    for i in range(1, count + 1):
        behind = [i * size / sum(sizes) - got for size, got in zip(sizes, allocated, strict=True)]
        chosen.append(max(range(len(sizes)), key=lambda k: (behind[k], -k)))
        allocated[chosen[-1]] += 1
    return chosen
