"""The classes of a target, and what each is called."""

import difflib
from pathlib import Path

import pandas as pd

from augbench.core import list_files
from augbench.core.files import BadInput
from augbench.study.readers.layout import same_name

NAMES = {  # columns of a table of names, and what else people call them
    "class": ["classname", "label", "folder", "wnid", "category"],
    "lemmas": ["lemma", "name", "names", "title"],
    "hypernyms": ["hypernym"],
    "definition": ["gloss", "description"],
    "synonyms": ["synonym", "aliases", "alias"],
}
CELLS = ["hypernyms", "definition", "synonyms"]  # what may be empty


def class_keys(target) -> list[str]:
    """The classes of a target in their order, known before any work starts."""
    return list(target.reader.known_classes or target.reader.layout(target).classes)


def class_table(target) -> pd.DataFrame:
    """Columns class, lemmas (comma separated), hypernyms, definition and, where a table has any, synonyms (comma
    separated): names that captions have but no prompt; one row per class, in class order.

    Each comes from the CSV ``target.classes``; where that is silent, from the layout's (WordNet's for ImageNet), and a
    name at last from the folder's. Raises BadInput for a CSV that names a class that there is not.
    """
    layout = target.reader.layout(target)
    info = _named(layout.names) if layout.names else {}
    if target.classes:
        keys = {same_name(key): key for key in layout.classes}
        for name, row in _named(target.classes).items():
            key = name if name in layout.classes else keys.get(same_name(name))
            if key is None:
                near = difflib.get_close_matches(name, layout.classes, 1)
                meant = f", did you mean {near[0]!r}?" if near else ""
                raise BadInput(f"{target.classes} names the class {name!r}, which {target.path} does not have{meant}")
            info[key] = info.get(key, {}) | row
    rows = []
    for key, name in layout.classes.items():
        row = info.get(key, {})
        name = name.replace("_", " ").replace("-", " ").strip()
        rows.append((key, row.get("lemmas") or name, *(row.get(column, "") for column in CELLS)))
    table = pd.DataFrame(rows, columns=["class", "lemmas", *CELLS])
    return table if table["synonyms"].any() else table.drop(columns="synonyms")


def _named(source: str | Path) -> dict[str, dict[str, str]]:
    """Class -> lemmas, hypernyms, definition and synonyms as a CSV has them, without empty cells."""
    info: dict[str, dict[str, str]] = {}
    for row in list_files.read(source, NAMES, ["class", "lemmas"]).to_pylist():
        if not (key := row.pop("class")):
            continue
        cells = {name: cell for name, cell in row.items() if cell}
        if info.setdefault(key, cells) != cells:
            raise BadInput(f"{source} names the class {key!r} twice; keep one of these rows")
    return info
