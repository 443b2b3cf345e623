"""The report's figures, as SVG whose bytes depend on the data alone."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from augbench.images.thumbnails import decoded
from augbench.report.comparison import accuracy

FUNNEL_CLASSES = 30  # bars in the retrieval figure
LABEL = 34  # characters of a name in a figure
FAMILY_COLOURS = {
    "baseline": "#5b8bd0",
    "unconditional": "#9a80c8",
    "prompting": "#e08e33",
    "fine-tuning": "#4aa36b",
    "retrieval": "#d4574e",
}
OTHER_COLOUR = "#8a8f98"
FATES = {  # fate of a retrieved neighbour: its colour; fates that are not listed come last
    "used": "#2f9e62",
    "spare": "#9bd3ae",
    "unaesthetic": "#e6b450",
    "duplicate": "#7f9bd1",
    "other class": "#8fc4c9",
    "dead": "#8a8f98",
    "timeout": "#6d727a",
    "refused": "#54585f",
    "opted out": "#c4a24a",
    "too large": "#a58a6f",
    "too small": "#c7b299",
    "unreadable": "#b48ead",
    "unsafe": "#d4574e",
}
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


def accuracy_figure(rows: Sequence[Mapping]) -> Drawing:
    """Accuracies (percent) with standard errors as bars; lines mark the baselines."""
    low = min(row["accuracy_mean"] for row in rows)
    high = max(row["accuracy_mean"] + (row["accuracy_se"] or 0) for row in rows)
    start = max(0.0, 5 * math.floor((low - 0.35 * (high - low) - 0.5) / 5))

    marks = {"none": "dashed", "more_real": "dotted"}

    def draw(figure, ink):
        axes = figure.subplots()
        for row in rows:
            if row["start"] in marks:  # across the bars only: between them are names
                bands = [y - 0.21 for y in range(len(rows))], [y + 0.21 for y in range(len(rows))]
                axes.vlines(
                    [row["accuracy_mean"]] * len(rows), *bands, color=ink, linestyles=marks[row["start"]], linewidth=1
                )
        for y, row in enumerate(rows):
            colour = FAMILY_COLOURS.get(row["family"], OTHER_COLOUR)
            axes.barh(y, row["accuracy_mean"] - start, left=start, height=0.42, color=colour)
            error = row["accuracy_se"] or 0
            if error:
                axes.errorbar(row["accuracy_mean"], y, xerr=error, color=ink, capsize=2.5, elinewidth=1, capthick=1)
            names = [short(row["title"])] + [row["family"]] * (row["title"].lower() != row["family"])
            label = " · ".join(names)
            axes.annotate(label, (start, y - 0.24), (0, 1), textcoords="offset points", va="bottom")
            # In a column of their own, where no line or whisker crosses them.
            axes.annotate(accuracy(row)[:-1], (high, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_ylim(len(rows) - 0.6, -0.75)
        axes.set_xlim(start, high + 0.2 * (high - start))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("top-1 accuracy on the test set (%)")

    return Drawing(draw, (4.6, 0.62 + 0.43 * len(rows)))


def funnel_figure(funnel: Mapping) -> Drawing:
    """Fates of the neighbours of the first classes as stacked bars (number of neighbours)."""
    rows = funnel["rows"][:FUNNEL_CLASSES]

    def draw(figure, ink):
        axes = figure.subplots()
        left = [0] * len(rows)
        for k, fate in enumerate(funnel["fates"]):
            widths = [row["counts"][k] for row in rows]
            colour = FATES.get(fate, OTHER_COLOUR)
            axes.barh(range(len(rows)), widths, left=left, height=0.7, color=colour, label=fate)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(rows)), [short(row["name"])[:18] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("neighbours")
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8, handlelength=1, columnspacing=1)

    return Drawing(draw, (4.6, 0.95 + 0.24 * len(rows)))


def curve_figure(curves: Mapping, limits: tuple[float, float]) -> Drawing:
    """Validation accuracy (percent) over the epochs, a line per run."""

    def draw(figure, ink):
        axes = figure.subplots()
        colour = FAMILY_COLOURS.get(curves["family"], OTHER_COLOUR)
        for run in curves["runs"]:
            axes.plot(run["epoch"], run["accuracy"], color=colour, linewidth=0.9, alpha=0.8)
        axes.set_ylim(*limits)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy (%)", fontsize=8)

    return Drawing(draw, (2.9, 1.9))


def loss_figure(histories: Mapping[str, Mapping], chosen: str, epoch: int, colour: str) -> Drawing:
    """Losses over the epochs of a fine-tuning, per learning rate; the chosen epoch is marked.

    ``histories`` maps a learning rate to lists ``epoch``, ``train_loss`` and ``validation_loss``.
    """

    def draw(figure, ink):
        axes = figure.subplots()
        for rate, history in histories.items():
            alpha = 1 if rate == chosen else 0.35
            for key, style in {"train_loss": (0, (2, 2)), "validation_loss": "solid"}.items():
                axes.plot(history["epoch"], history[key], color=colour, linestyle=style, linewidth=1.1, alpha=alpha)
        axes.axvline(epoch, color=ink, linewidth=0.8)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss", fontsize=8)

    return Drawing(draw, (2.9, 1.9))


def differences_figure(parts: Sequence[Mapping]) -> Drawing:
    """Differences with 95% intervals (percentage points), a panel per question.

    ``parts`` have a label and ``rows`` with title, family, difference, low and high (None without an interval) and
    ``counts``, whether the difference counts, which a full point says.
    """

    def draw(figure, ink):
        panels = figure.subplots(
            len(parts), 1, squeeze=False, height_ratios=[1.6 + len(part["rows"]) for part in parts]
        )
        for axes, part in zip(panels[:, 0], parts, strict=True):
            rows = part["rows"]
            axes.axvline(0, color=ink, linewidth=0.8)
            for y, row in enumerate(rows):
                colour = FAMILY_COLOURS.get(row["family"], OTHER_COLOUR)
                if row["low"] is not None:
                    axes.hlines(y, row["low"], row["high"], color=colour, linewidth=2.2)
                fill = colour if row["counts"] else "none"
                axes.plot(row["difference"], y, "o", color=colour, markerfacecolor=fill, markersize=5)
            axes.set_yticks(range(len(rows)), [short(row["title"]) for row in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")
            axes.set_axisbelow(True)
            axes.set_xlabel(part["label"], fontsize=8)

    return Drawing(draw, (4.6, sum(0.6 + 0.27 * len(part["rows"]) for part in parts)))


def scaling_figure(lines: Sequence[Mapping], without: float | None) -> Drawing:
    """Figure 5B: accuracy over the augmentation ratio, a line per method, the baseline at ratio 0.

    ``lines`` have title, family and ``rows`` of the scaling table by ratio. Triangles mark the worst and the best
    case where classes had to be left out, hollow points ratios at which all runs added the same images.
    """
    marks = "osD^vPX*<>hd"

    def draw(figure, ink):
        axes = figure.subplots()
        for k, line in enumerate(lines):
            colour = FAMILY_COLOURS.get(line["family"], OTHER_COLOUR)
            x = [100 * row["ratio"] for row in line["rows"]]
            y = [row["accuracy_mean"] for row in line["rows"]]
            error = [row["accuracy_se"] or 0 for row in line["rows"]]
            mark = marks[k % len(marks)]
            begin = ([0, x[0]], [without, y[0]]) if without is not None else ([], [])
            axes.plot(*begin, color=colour, linewidth=1, alpha=0.6)
            label = short(line["title"], 24)
            axes.errorbar(x, y, yerr=error, color=colour, linewidth=1.2)
            fill = "none" if all(row["sets"] == 1 for row in line["rows"]) else colour
            axes.plot([], [], color=colour, marker=mark, markerfacecolor=fill, markersize=4, linewidth=1.2, label=label)
            for row in line["rows"]:
                fill = "none" if row["sets"] == 1 else colour
                place = 100 * row["ratio"], row["accuracy_mean"]
                axes.plot(*place, marker=mark, color=colour, markerfacecolor=fill, markersize=4)
                if row["accuracy_worst"] != row["accuracy_best"]:
                    for key, shape in (("accuracy_worst", "^"), ("accuracy_best", "v")):
                        axes.plot(100 * row["ratio"], row[key], shape, color=colour, mfc="none", markersize=6)
        if without is not None:
            axes.plot(0, without, "o", color=ink, markersize=4)
        axes.grid(axis="y")
        axes.set_xlabel("added images (% of the training images)")
        axes.set_ylabel("top-1 accuracy (%)", fontsize=8)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)

    return Drawing(draw, (4.6, 3.2 + 0.17 * math.ceil(len(lines) / 2)))


def improvement_axes(axes, lines: Sequence[Mapping], ink: str) -> None:
    """Sorted improvements per class (percentage points), a line per method; see :func:`improvement_figure`."""
    axes.axhline(0, color=ink, linewidth=0.8)
    for line in lines:
        colour = FAMILY_COLOURS.get(line["family"], OTHER_COLOUR)
        values = [row["improvement"] for row in line["rows"]]
        share = [100 * (rank + 0.5) / len(values) for rank in range(len(values))]
        few = len(values) <= 50
        axes.plot(share, values, "o-" if few else "-", color=colour, markersize=3, linewidth=1.3, label=line["title"])
    axes.grid(axis="y")
    axes.set_xlim(0, 100)
    axes.set_xlabel("classes, from the worst to the best (%)")
    axes.set_ylabel("improvement (percentage points)", fontsize=8)


def improvement_figure(lines: Sequence[Mapping]) -> Drawing:
    """Figure 5A, its middle: the distribution over classes of what each method of ``lines`` improves."""

    def draw(figure, ink):
        improvement_axes(figure.subplots(), lines, ink)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)

    return Drawing(draw, (4.6, 2.9))


def extremes_figure(lines: Sequence[Mapping]) -> Drawing:
    """Figure 5A as a whole: the distribution, below it pictures of each method's worst and best classes.

    ``lines`` also have ``worst`` and ``best``: classes with name, improvement and pictures.
    """
    below = [line["worst"] + line["best"] for line in lines]
    across = max(map(len, below), default=1) or 1

    def draw(figure, ink):
        axes = figure.subplots(1 + len(lines), 1, height_ratios=[2.6] + [1.6] * len(lines))
        improvement_axes(axes[0], lines, ink)
        axes[0].legend(loc="upper left", frameon=False, fontsize=8)
        for line, shown, part in zip(lines, below, axes[1:], strict=True):
            columns = [{"name": f"{short(each['name'], 11)}\n{each['improvement']:+.1f}"} for each in shown]
            rows = [
                {"title": title, "cells": [each["pictures"][place : place + 1] for each in shown]}
                for place, title in enumerate(("training image", "added image"))
            ]
            _mosaic(part, columns, rows, 1)
            part.set_xlabel(f"{line['title']}: its worst classes, then its best", fontsize=8)

    return Drawing(draw, (1.4 + 0.65 * max(across, 6), 2.8 + 1.9 * len(lines)))


def picture_figure(grid: Mapping) -> Drawing:
    """A grid of pictures: ``classes`` are the columns (name), ``rows`` have a title and, per class, thumbnails."""
    rows, columns = grid["rows"], grid["classes"]
    wide = max((len(cell) for row in rows for cell in row["cells"]), default=1) or 1
    side = 0.5 if wide * len(columns) > 8 else 0.8

    def draw(figure, ink):
        _mosaic(figure.subplots(), columns, rows, wide)

    return Drawing(draw, (2.2 + side * wide * len(columns), 0.5 + side * max(1, len(rows))))


def gallery_figure(grids: Sequence[Mapping]) -> Drawing:
    """Grids of pictures side by side, each as for :func:`picture_figure` and with a ``title``."""
    wide = [max((len(cell) for row in grid["rows"] for cell in row["cells"]), default=1) or 1 for grid in grids]
    across = [count * len(grid["classes"]) for count, grid in zip(wide, grids, strict=True)]
    down = max((len(grid["rows"]) for grid in grids), default=1) or 1
    side = 0.4

    def draw(figure, ink):
        places = figure.subplots(1, len(grids), squeeze=False, gridspec_kw={"width_ratios": across})[0]
        for axes, grid, count in zip(places, grids, wide, strict=True):
            _mosaic(axes, grid["classes"], grid["rows"], count, down, 60)
            axes.set_title(short(grid["title"]), fontsize=8)

    return Drawing(draw, (3 * len(grids) + side * sum(across), 0.8 + side * down))


def _mosaic(
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
    names = [about["name"] if "\n" in about["name"] else short(about["name"], 5 * wide + 6) for about in columns]
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
