"""Prompts: from a class's names and a method's templates to the text that guides model or search."""

import difflib
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from augbench.core import package_data
from augbench.core.files import BadInput
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
    """The templates of ``resources/templates/{conditioning}.txt``, one a line; or all prompts of a file of such."""
    if is_prompt_file(conditioning):
        return [text for texts in of_classes(conditioning).values() for text in texts]
    return lines(template_file(conditioning))


def is_prompt_file(conditioning: str) -> bool:
    """Whether a conditioning is a file of prompts for each class, rather than the name of templates for all."""
    return conditioning.endswith(".json")


def of_classes(conditioning: str) -> dict[str, list[str]]:
    """The prompts of a file ``{CLASS: [PROMPT, ...]}`` (CuPL's format), by class as the file calls it.

    Raises BadInput when it holds anything else.
    """
    status = Path(conditioning).stat()
    return _of_classes(conditioning, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _of_classes(conditioning: str, size: int, changed: int) -> dict[str, list[str]]:
    try:
        prompts = json.loads(Path(conditioning).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{conditioning} is no JSON in UTF-8: {error}") from None
    if not isinstance(prompts, dict):
        raise BadInput(f"{conditioning} holds no prompts by class; write {{CLASS: [PROMPT, ...]}}")
    for key, texts in prompts.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise BadInput(f"{conditioning}: the prompts of {key!r} are no list of texts; write [PROMPT, ...]")
        if not texts:
            raise BadInput(f"{conditioning}: the class {key!r} has no prompt; write one, or take the class away")
    return prompts


def of_class(conditioning: str, class_info: Mapping[str, str]) -> list[str]:
    """The prompts of a class, which the file calls by its key or by one of its names. Raises BadInput when it has
    none."""
    prompts = of_classes(conditioning)
    called = {name.casefold(): name for name in prompts}
    for name in _names_of(class_info):
        if name in called:
            return prompts[called[name]]
    raise BadInput(f"{conditioning} has no prompts of the class {class_info['class']!r}; write them")


def check_classes(conditioning: str, class_rows: Sequence[Mapping[str, str]]) -> None:
    """Raise BadInput when a file of prompts lacks a class, or has one that there is not."""
    for row in class_rows:
        of_class(conditioning, row)
    known = {name for row in class_rows for name in _names_of(row)}
    for name in of_classes(conditioning):
        if name.casefold() not in known:
            meant = difflib.get_close_matches(name.casefold(), known, 1)
            hint = f"; is it {meant[0]!r}?" if meant else "; take it away"
            raise BadInput(f"{conditioning} has prompts of {name!r}, which is no class of the target{hint}")


def _names_of(class_info: Mapping[str, str]) -> list[str]:
    """What a class may be called, its key first."""
    names = [class_info["class"], class_info["lemmas"], *class_info["lemmas"].split(",")]
    return [name.strip().casefold() for name in names]


def template_file(conditioning: str) -> Path:
    """The user's file of templates of this name, or else the package's; or the file of prompts for each class."""
    if is_prompt_file(conditioning):
        return Path(conditioning)
    return package_data.own_or_bundled(f"{TEMPLATES}/{conditioning}.txt")


def backgrounds() -> list[str]:
    """Places that may follow a class name, of the user's ``resources/backgrounds.txt``, or else the package's."""
    return lines(package_data.own_or_bundled(BACKGROUNDS))


def digest(conditioning: str | None) -> str:
    """SHA-256 (16 hex digits) of all that prompts are made from, beside the classes; empty for none."""
    if conditioning is None:
        return ""
    if is_prompt_file(conditioning):
        return hashlib.sha256(Path(conditioning).read_bytes()).hexdigest()[:16]
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
    if conditioning and is_prompt_file(conditioning):
        return []
    texts = templates(conditioning) if conditioning else []
    return [word for place, word in NEEDED.items() if any(place in text for text in texts) and not class_info.get(word)]


def usable(conditioning: str, class_info: Mapping[str, str]) -> list[str]:
    """The templates that can be filled in for a class: without those that need, elsewhere than as a further part of a
    list, hypernyms or a definition that the class does not have. Raises ValueError when none is left."""
    if is_prompt_file(conditioning):
        return of_class(conditioning, class_info)
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
