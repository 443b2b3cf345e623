"""Families of methods: free text, of which the paper's five have an order and colours of their own."""

import colorsys
from collections.abc import Iterable

PAPER = {  # in the order of Table 1
    "baseline": "#5b8bd0",
    "unconditional": "#9a80c8",
    "prompting": "#e08e33",
    "fine-tuning": "#4aa36b",
    "retrieval": "#d4574e",
}
# For further families, in their order: each as far as possible from all before it, as seen with normal vision and
# simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009), and legible on light and dark pages.
FURTHER = ("#733f5e", "#6121d9", "#d9a3c3", "#33590d", "#634d8c", "#698c82", "#b9b6f2", "#bbbf69")
NEUTRAL = "#8a8f98"  # of what belongs to no family


def ordered(families: Iterable[str]) -> list[str]:
    """The families, each once: the paper's in its order, then others as they come."""
    present = dict.fromkeys(families)
    return [name for name in PAPER if name in present] + [name for name in present if name not in PAPER]


def colours(families: Iterable[str]) -> dict[str, str]:
    """Family -> colour, in the order of :func:`ordered`; no two are the same."""
    present = ordered(families)
    others = [name for name in present if name not in PAPER]
    return {name: PAPER[name] if name in PAPER else _further(others.index(name)) for name in present}


def _further(place: int) -> str:
    if place < len(FURTHER):
        return FURTHER[place]
    beyond = place - len(FURTHER)  # more than anybody tells apart: at least no two are the same
    red, green, blue = colorsys.hls_to_rgb(0.618034 * beyond % 1, 0.4 + 0.15 * (beyond % 3), 0.5)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
