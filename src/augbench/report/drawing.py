"""How figures become SVG and PDF, whose bytes depend on the data alone, and the kinds of figure that several share."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from augbench.images.thumbnails import decoded

LABEL = 34  # characters of a name in a figure
# Colours that the page replaces by its own, so that figures follow light and dark.
INK, GRID = "#123456", "#654321"
PLAIN_INK, PLAIN_GRID = "#222222", "#dddddd"


class Drawing(NamedTuple):
    """A figure that is yet to be rendered: what fills it, and its size in inches."""

    draw: Callable
    size: tuple[float, float]


def svg(drawing: Drawing, name: str = "figure", themed: bool = False) -> str:
    """SVG text of a figure; the same bytes for the same data.

    ``themed`` figures are for the page: without prologue, their ids prefixed by ``name`` and their ink
    and grid in the page's colours.
    """
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    text = _rendered(drawing, "svg", nothing).decode()
    if not themed:
        return text.replace(INK, PLAIN_INK).replace(GRID, PLAIN_GRID)
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = text.replace(INK, "currentColor").replace(GRID, "var(--line)")
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"<svg [^>]*?viewBox=(\"[^\"]*\")[^>]*>", r'<svg viewBox=\1 aria-hidden="true">', text, count=1)


def pdf(drawing: Drawing) -> bytes:
    """PDF of a figure, with fonts embedded; the same bytes for the same data."""
    return _rendered(drawing, "pdf", dict.fromkeys(("CreationDate", "Creator", "Producer")))


def _rendered(drawing: Drawing, kind: str, metadata: Mapping) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink, grid = (INK, GRID) if kind == "svg" else (PLAIN_INK, PLAIN_GRID)
    style = {
        "svg.hashsalt": "augbench",
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "text.parse_math": False,
        "image.composite_image": False,  # pictures as they are, not resampled into one
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
        "grid.color": grid,
        "grid.linewidth": 0.6,
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=drawing.size, layout="constrained")
        FigureCanvasAgg(figure)
        drawing.draw(figure, ink)
        figure.savefig(buffer, format=kind, transparent=True, metadata=dict(metadata))
    return buffer.getvalue()


def short(name: str, length: int = LABEL) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def label_rows(axes, labels: Sequence[str]) -> None:
    """Name the rows 0, 1, ... of a plot, the first at the top, with grid lines across them."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def picture_figure(grid: Mapping) -> Drawing:
    """A grid of pictures: ``classes`` are the columns (name), ``rows`` have a title and, per class, thumbnails."""
    rows, columns = grid["rows"], grid["classes"]
    wide = _widest(rows)
    side = 0.5 if wide * len(columns) > 8 else 0.8

    def draw(figure, ink):
        mosaic(figure.subplots(), columns, rows, wide)

    return Drawing(draw, (2.2 + side * wide * len(columns), 0.5 + side * max(1, len(rows))))


def gallery_figure(grids: Sequence[Mapping]) -> Drawing:
    """Grids of pictures side by side, each as for :func:`picture_figure` and with a ``title``."""
    wide = [_widest(grid["rows"]) for grid in grids]
    across = [count * len(grid["classes"]) for count, grid in zip(wide, grids, strict=True)]
    down = max((len(grid["rows"]) for grid in grids), default=1) or 1
    side = 0.4

    def draw(figure, ink):
        places = figure.subplots(1, len(grids), squeeze=False, gridspec_kw={"width_ratios": across})[0]
        for axes, grid, count in zip(places, grids, wide, strict=True):
            mosaic(axes, grid["classes"], grid["rows"], count, down, 60)
            axes.set_title(short(grid["title"]), fontsize=8)

    return Drawing(draw, (3 * len(grids) + side * sum(across), 0.8 + side * down))


def _widest(rows: Sequence[Mapping]) -> int:
    """The largest number of pictures in a cell of a grid, at least one."""
    return max((len(cell) for row in rows for cell in row["cells"]), default=1) or 1


def mosaic(
    axes, columns: Sequence[Mapping], rows: Sequence[Mapping], wide: int, down: int = 1, label: int = LABEL
) -> None:
    """Rows and columns of pictures, ``wide`` in each cell, in one coordinate system: axes for each would be slow.

    There is room for ``down`` rows at least, and for ``label`` characters of their titles.
    """
    step = wide + 0.15
    for y, row in enumerate(rows):
        for x, cell in enumerate(row["cells"]):
            for k, thumb in enumerate(cell):
                left = x * step + k
                place = (left + 0.03, left + 0.97, y + 0.97, y + 0.03)
                axes.imshow(decoded(thumb), extent=place, interpolation="none", aspect="auto")
    axes.set_xlim(0, step * max(1, len(columns)))
    axes.set_ylim(max(down, len(rows)), 0)
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], [short(row["title"], label) for row in rows], fontsize=7)
    names = [column["name"] if "\n" in column["name"] else short(column["name"], 5 * wide + 6) for column in columns]
    axes.set_xticks([x * step + wide / 2 for x in range(len(columns))], names, fontsize=7)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)


def panels_figure(parts: Sequence[tuple[str, Drawing]], across: int = 4) -> Drawing:
    """Small figures of one size with their titles, side by side."""
    down = math.ceil(len(parts) / across) if parts else 1
    width, height = parts[0][1].size if parts else (1, 1)

    def draw(figure, ink):
        places = figure.subfigures(down, across, squeeze=False).ravel()
        for place, (title, drawing) in zip(places, parts, strict=False):
            place.suptitle(short(title), fontsize=8)
            drawing.draw(place, ink)

    return Drawing(draw, (across * width, down * (height + 0.2)))
