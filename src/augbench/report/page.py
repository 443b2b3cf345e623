"""The page that joins the sections of studies: one file that can be read anywhere, without a network."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from augbench.core import files, pages
from augbench.report import sorting

LINK = '<a data-file="'  # before the address of a file, relative to the study's folder; text from data has no bare <


def write(path: str | Path, sections: Sequence[str | Path]) -> None:
    """Write the page over the studies whose sections these JSON files hold (see ``study_page.section``).

    All text from data is escaped; pictures are inside the page as data URIs, and links lead from the page to the files
    of each study, whose folder is that of its JSON file.
    """
    from markupsafe import Markup

    place, studies = Path(path).resolve().parent, []
    for file in sections:
        study = files.read_json(file)
        folder = os.path.relpath(Path(file).resolve().parent, place)
        address = "" if folder == "." else f"{quote(folder)}/"
        studies.append(study | {"html": Markup(study["html"].replace(LINK, f'<a href="{address}'))})
    shown = pages.template("report/page.html.j2", code=code)
    files.write_text(path, shown.render(studies=studies, script=Markup(sorting.SCRIPT), digest=sorting.digest()))


def filters(folder: str | Path) -> dict[str, Callable]:
    """The filters of a study's templates; ``folder`` is results/STUDY, from which links lead."""
    place = Path(folder).resolve()
    return {
        "number": number,
        "probability": probability,
        "duration": duration,
        "link": lambda target: quote(os.path.relpath(Path(target).resolve(), place)),
    }


def code(text: str) -> str:
    """Text with what stands in backquotes as code; all else is escaped."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    shown = (Markup("<code>{}</code>").format(part) if k % 2 else escape(part) for k, part in enumerate(parts))
    return Markup("").join(shown)


def number(value: float | None, places: int = 1) -> str:
    """A number with so many decimal places; a dash where there is none."""
    return "–" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:,.{places}f}"


def probability(value: float | None) -> str:
    """A p-value with three decimal places; a dash where there is none."""
    return "< 0.001" if value is not None and value < 0.001 else number(value, 3)


def duration(seconds: float) -> str:
    """Seconds as text: 12.3 s, 4 min 05 s or 3 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
