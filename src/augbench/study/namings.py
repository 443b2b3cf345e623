"""What the folders of a further test set are called: a class for each value of ``classes``, and the table of them."""

import re
from collections.abc import Mapping, Sequence

from augbench.core import files
from augbench.core.files import BadInput
from augbench.study.readers.layout import same_name
from augbench.study.sections.base import did_you_mean


class Naming:
    """How a test set names the target's classes. ``rows`` of these have the columns class and lemmas."""

    name: str
    meaning: str  # for the reference of the configuration

    def normal(self, label: str) -> str:
        """A label in the form in which labels are compared."""
        return same_name(label)

    def labels(self, rows: Sequence[Mapping]) -> dict[str, list[str]]:
        """Normal label -> the classes that it may mean."""
        raise NotImplementedError

    def unknown(self, label: str, labels: Mapping[str, list[str]]) -> str:
        """What to say of a label that means no class: the nearest one."""
        known = [key for key in labels if key.casefold() == label.casefold()] or labels
        first = ", ".join(list(labels)[:5])
        return did_you_mean(self.normal(label), known) or f" (its classes are {first}{', ...' * (len(labels) > 5)})"

    def class_of(self, label: str, labels: Mapping[str, list[str]], place: str) -> str:
        """The class that a label means. Raises BadInput where it means none or several; ``place`` is the set's."""
        keys = labels.get(self.normal(label), [])
        if not keys:
            raise BadInput(
                f"{place} has the class {files.printable(label)!r}, which the target does not have"
                f"{self.unknown(label, labels)}"
            )
        if len(keys) > 1:
            raise BadInput(
                f"{place} has the class {label!r}, a name of {' and '.join(keys)}: call it by one of these, or write "
                "`classes: wnid` or `classes: position`"
            )
        return keys[0]


class Wnid(Naming):
    name = "wnid"
    meaning = "as the target's own folders, which for ImageNet are WordNet's numbers"

    def labels(self, rows):
        return {same_name(row["class"]): [row["class"]] for row in rows}


class ByName(Naming):
    name = "name"
    meaning = "as the target's own folders, or by one of a class's names, in any case"

    def normal(self, label):
        return re.sub(r"[\s_-]+", " ", same_name(label)).strip().casefold()

    def labels(self, rows):
        own = {self.normal(row["class"]): [row["class"]] for row in rows}
        named: dict[str, list[str]] = {}
        for row in rows:
            for lemma in dict.fromkeys(map(self.normal, row["lemmas"].split(","))):
                named.setdefault(lemma, []).append(row["class"])
        return named | own


class Position(Naming):
    name = "position"
    meaning = (
        "by their numbers among the target's classes, from 0, as ImageNet-V2's: these are sorted by name, or, where "
        "all are numbers, as numbers"
    )

    def normal(self, label):
        return str(int(label)) if label.isdecimal() else label

    def labels(self, rows):
        keys = [row["class"] for row in rows]
        if all(map(str.isdecimal, keys)):
            keys.sort(key=int)
        return {str(place): [key] for place, key in enumerate(keys)}

    def unknown(self, label, labels):
        return f": with `classes: position` its classes are 0 to {len(labels) - 1}"


NAMINGS: dict[str, Naming] = {naming.name: naming for naming in (Wnid(), ByName(), Position())}
