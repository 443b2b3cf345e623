"""The report's figures, as SVG whose bytes depend on the data alone."""

import io
import math
import re
from collections.abc import Mapping, Sequence

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


def figure(draw, size: tuple[float, float], name: str, themed: bool) -> str:
    """SVG text of a figure of ``size`` inches that ``draw(figure)`` fills; the same bytes for the same data.

    ``themed`` figures are for the page: without prologue, their ids prefixed by ``name`` and their ink
    and grid in the page's colours.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "augbench",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "grid.color": GRID,
        "grid.linewidth": 0.6,
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    if not themed:
        return text.replace(INK, "#222222").replace(GRID, "#dddddd")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = text.replace(INK, "currentColor").replace(GRID, "var(--line)")
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"<svg [^>]*?viewBox=(\"[^\"]*\")[^>]*>", r'<svg viewBox=\1 aria-hidden="true">', text, count=1)


def accuracy(summary: Mapping) -> str:
    """A method's mean accuracy and standard error as text, in percent."""
    error = (
        "" if summary["accuracy_se"] is None else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{summary['accuracy_se']:.1f}"
    )
    return f"{summary['accuracy_mean']:.1f}{error}%"


def short(name: str) -> str:
    return name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"


def accuracy_figure(rows: Sequence[Mapping], name: str = "accuracy", themed: bool = False) -> str:
    """Accuracies (percent) with standard errors as bars; lines mark the baselines."""
    low = min(row["accuracy_mean"] for row in rows)
    high = max(row["accuracy_mean"] + (row["accuracy_se"] or 0) for row in rows)
    start = max(0.0, 5 * math.floor((low - 0.35 * (high - low) - 0.5) / 5))

    marks = {"none": "dashed", "more_real": "dotted"}

    def draw(figure):
        axes = figure.subplots()
        for row in rows:
            if row["start"] in marks:  # across the bars only: between them are names
                bands = [y - 0.21 for y in range(len(rows))], [y + 0.21 for y in range(len(rows))]
                axes.vlines(
                    [row["accuracy_mean"]] * len(rows), *bands, color=INK, linestyles=marks[row["start"]], linewidth=1
                )
        for y, row in enumerate(rows):
            colour = FAMILY_COLOURS.get(row["family"], OTHER_COLOUR)
            axes.barh(y, row["accuracy_mean"] - start, left=start, height=0.42, color=colour)
            error = row["accuracy_se"] or 0
            if error:
                axes.errorbar(row["accuracy_mean"], y, xerr=error, color=INK, capsize=2.5, elinewidth=1, capthick=1)
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

    return figure(draw, (4.6, 0.62 + 0.43 * len(rows)), name, themed)


def funnel_figure(funnel: Mapping, name: str) -> str:
    """Fates of the neighbours of the first classes as stacked bars (number of neighbours), as SVG."""
    rows = funnel["rows"][:FUNNEL_CLASSES]

    def draw(figure):
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

    return figure(draw, (4.6, 0.95 + 0.24 * len(rows)), name, True)


def curve_figure(curves: Mapping, limits: tuple[float, float], name: str) -> str:
    """Validation accuracy (percent) over the epochs, a line per run, as SVG."""

    def draw(figure):
        axes = figure.subplots()
        colour = FAMILY_COLOURS.get(curves["family"], OTHER_COLOUR)
        for run in curves["runs"]:
            axes.plot(run["epoch"], run["accuracy"], color=colour, linewidth=0.9, alpha=0.8)
        axes.set_ylim(*limits)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy (%)", fontsize=8)

    return figure(draw, (2.9, 1.9), name, True)


def loss_figure(histories: Mapping[str, Mapping], chosen: str, epoch: int, colour: str, name: str) -> str:
    """Losses over the epochs of a fine-tuning, per learning rate; the chosen epoch is marked.

    ``histories`` maps a learning rate to lists ``epoch``, ``train_loss`` and ``validation_loss``.
    """

    def draw(figure):
        axes = figure.subplots()
        for rate, history in histories.items():
            alpha = 1 if rate == chosen else 0.35
            for key, style in {"train_loss": (0, (2, 2)), "validation_loss": "solid"}.items():
                axes.plot(history["epoch"], history[key], color=colour, linestyle=style, linewidth=1.1, alpha=alpha)
        axes.axvline(epoch, color=INK, linewidth=0.8)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss", fontsize=8)

    return figure(draw, (2.9, 1.9), name, True)
