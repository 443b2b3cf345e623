"""What to do with a data set, in plain words, from the numbers of its study.

Rules with stated thresholds, on plain data; nothing is read or drawn here. A method *helps* when it is better than the
target data alone by the comparison's test. Of those that help and whose gain no possible leak could undo, the one with
the highest accuracy is recommended; where nothing helps, the target data alone are.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from augbench.report import sentences
from augbench.report.comparison import LEVEL, holm
from augbench.report.options import Facts, Option


class Line(NamedTuple):
    label: str
    text: list[str]


def answer(facts: Facts) -> dict:
    """The answer as plain data: ``verdict``, one sentence; ``case``, which rule it follows from; and ``lines``, each a
    label and sentences."""
    case, verdict, chosen, lines = _decided(facts)
    if chosen is not None:
        lines += [
            Line("How many images", sentences.amounts(chosen)),
            Line("What it costs", sentences.costs(chosen, facts)),
        ]
        lines.append(Line("What speaks against it", sentences.against(chosen, facts)))
    lines.append(Line("Without training", sentences.untrained(facts)))
    lines.append(Line("What this cannot say", sentences.unknown(facts)))
    shown = [{"label": line.label, "sentences": line.text} for line in lines if line.text]
    return {"verdict": verdict, "case": case, "lines": shown}


def markdown(study: str, answer: Mapping) -> str:
    """An answer as Markdown."""
    lines = [f"# {_literal(study)}: {_literal(answer['verdict'])}", ""]
    for line in answer["lines"]:
        lines += [f"**{line['label']}.** {_literal(' '.join(line['sentences']))}", ""]
    return "\n".join(lines)


# --- which rule applies


Decided = tuple[str, str, Option | None, list[Line]]  # case, verdict, the method that the further lines describe, lines


def _decided(facts: Facts) -> Decided:
    """What to do, what is gained and how sure that is."""
    if not facts.options:
        lines = [Line("What to do", sentences.more_real(facts))]
        return "nothing", "No method that adds images was part of this study.", None, lines
    if facts.alone is None:
        return _without_comparison(facts)
    if all(math.isnan(option.gain.p) for option in facts.options):
        return _untested()
    helping = sorted((each for each in facts.options if each.helps), key=lambda each: -each.accuracy)
    trusted = [each for each in helping if each.is_trusted]
    if helping and not helping[0].is_trusted:
        return _leaking(facts, facts.alone, helping[0], trusted)
    if helping:
        return _helped(facts, facts.alone, trusted)
    return _not_helped(facts)


def _without_comparison(facts: Facts) -> Decided:
    first = max(facts.options, key=lambda each: each.accuracy)
    todo = [
        "Add the method `none` to `methods` and run again: the study has no classifier that was trained on your images "
        "alone, so it cannot say whether adding anything helps.",
        f"Of the methods that were compared, {first.title} has the highest accuracy, {first.accuracy:.1f}%.",
    ]
    return "no comparison", "This study cannot tell yet.", first, [Line("What to do", todo)]


def _untested() -> Decided:
    todo = [
        "Set `runs: 5` and run again: with a single run of each method, a real difference cannot be told from chance."
    ]
    return "no comparison", "This study cannot tell yet.", None, [Line("What to do", todo)]


def _helped(facts: Facts, alone: Option, helping: list[Option]) -> Decided:
    first, equal = helping[0], _equal(facts, helping)
    verdict = f"Use {first.title}."
    if len(equal) == 1:
        verdict = f"Use {first.title} or {equal[0].title}: which is better is open."
    elif equal:
        verdict = f"Use {first.title} or one of {len(equal)} others that help: which is best is open."
    todo = [*sentences.recipe(first, facts), *sentences.cheaper(first, equal, facts), *sentences.harmful(facts)]
    gained = [*sentences.gained(first, alone), *sentences.more_real(facts)]
    sure = [*sentences.certain(first, facts), *sentences.standing(facts, helping, equal)]
    lines = [Line("What to do", todo), Line("What you gain", gained), Line("How sure it is", sure)]
    return "open" if equal else "winner", verdict, first, lines


def _not_helped(facts: Facts) -> Decided:
    harmful = [each for each in facts.options if each.harms]
    verdict, case = "Train on your own images alone: no method is shown to help.", "no difference"
    if harmful:
        verdict, case = "Train on your own images alone: no method helps, and some do harm.", "harm"
    if len(harmful) == len(facts.options):
        verdict = "Train on your own images alone: what was tried makes the classifier worse."
    lines = [
        Line("What to do", [*sentences.own_images(facts), *sentences.harmful(facts), *sentences.more_real(facts)]),
        Line("How sure it is", [*sentences.certain_harm(facts), *sentences.promising(facts)]),
    ]
    return case, verdict, None, lines


def _leaking(facts: Facts, alone: Option, first: Option, trusted: list[Option]) -> Decided:
    """The method with the highest accuracy may owe its gain to test images among those it adds."""
    second = trusted[0] if trusted else None
    now = f"Use {second.title} for now" if second else "Train on your own images alone for now"
    if first.leak.is_judged:
        verdict = f"{now}: {first.title} adds copies of test images."
        clean = sentences.cleaning(first)
    else:
        verdict = f"{now}: what {first.title} adds may include copies of test images."
        clean = sentences.judging(first)
    todo = sentences.recipe(second, facts) if second else sentences.own_images(facts)
    gained = sentences.gained(second, alone) if second else []
    lines = [
        Line("What to do", [*todo, *sentences.harmful(facts)]),
        Line("Optional", clean),
        Line("What you gain", [*gained, *sentences.leaked(first), *sentences.more_real(facts)]),
        Line("How sure it is", sentences.certain(second, facts) if second else []),
    ]
    return "leak", verdict, second, lines


def _equal(facts: Facts, helping: Sequence[Option]) -> list[Option]:
    """The methods that help of which the first is not shown to be better, corrected for their number (Holm)."""
    first, *others = helping
    values = [facts.pairs[first.method, each.method].p for each in others]
    return [each for each, p in zip(others, holm(values), strict=True) if p >= LEVEL]


def _literal(text: str) -> str:
    """Text from data is no markup: of Markdown's, what could begin a link, a picture or HTML. What stands in backquotes
    stays code."""
    parts = text.split("`")
    return "`".join(part if k % 2 else re.sub(r"[<\[\]*_\\]", r"\\\g<0>", part) for k, part in enumerate(parts))
