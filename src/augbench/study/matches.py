"""Which rows of a pool retrieval considers, and in which order: a class for each value of a method's ``match``, and the
table of them.

Nothing else in the program compares a match with a string: it asks the object. A new one is a class here and a row of
``MATCHES``.
"""

from collections.abc import Mapping


class Match:
    """What the program asks of a match; this one's answers hold unless a class below says otherwise."""

    name: str
    meaning: str  # for the reference of the configuration
    reads_captions = False  # rows are considered whose captions name the class, and no others
    by_similarity = True  # the most similar to the query go first; else the rows are in the pool's order

    def names(self, class_info: Mapping[str, str]) -> list[str] | None:
        """What captions may call a class of the class table; None where they are not read."""
        if not self.reads_captions:
            return None
        cells = (class_info["lemmas"], class_info.get("synonyms", ""))
        names = (name.strip() for cell in cells for name in cell.split(","))
        return list(dict.fromkeys(name for name in names if name))


class ByClip(Match):
    name = "clip"
    meaning = "all of the pool, the images most similar to the query first"


class ByCaption(Match):
    name = "caption"
    meaning = "images whose captions name the class as a whole word, in the pool's order"
    reads_captions = True
    by_similarity = False


class ByBoth(Match):
    name = "both"
    meaning = "images whose captions name the class as a whole word, those most similar to the query first"
    reads_captions = True


MATCHES: dict[str, Match] = {match.name: match for match in (ByClip(), ByCaption(), ByBoth())}
