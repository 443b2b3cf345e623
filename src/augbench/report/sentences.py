"""The sentences of a study's answer, for readers who know no statistics."""

import math
from collections.abc import Iterable, Sequence

from augbench.report import power
from augbench.report.comparison import LEVEL
from augbench.report.exhibits.exhibit import counted
from augbench.report.options import Amount, Facts, Gain, Leak, Option

POINTLESS = 1.0  # percentage points: where no method can gain more, further runs are not worth it
FAR = 20.0  # percentage points by which a judge recognises added images less often than test images
LEAKY = 1.0  # percent of the validation images that resemble added ones
CHEAPER = 0.5  # of the best method's hours: what is as good and takes no more is named
ERRORS = 2.0  # standard errors by which another number of added images is better or worse
NAMED = 3  # methods that a sentence names


def own_images(facts: Facts) -> list[str]:
    return [f"Train on your own {_number(facts.train)} images and add nothing."]


def recipe(option: Option, facts: Facts) -> list[str]:
    if not option.added:
        return [f"Train on your own {_number(facts.train)} images with {option.title}; no image is added."]
    return [
        f"Train on your own {_number(facts.train)} images together with {_number(option.added)} that {option.title} "
        f"adds. `snakemake results/{facts.study}/export/{option.method}/folder` writes this set as folders of images."
    ]


def cheaper(first: Option, equal: Iterable[Option], facts: Facts) -> list[str]:
    """A method that is as good, as far as is known, and takes far fewer hours."""
    costs = [each for each in equal if each.hours <= CHEAPER * first.hours]
    least = min(costs, key=lambda each: each.hours, default=None)
    if least is None:
        return []
    took = f"{_hours(least.hours, facts.unit)} instead of {_hours(first.hours, facts.unit)}"
    return [f"If computing time counts, take {least.title}, which took {took}."]


def gained(option: Option, alone: Option) -> list[str]:
    here, before = round(10 * option.accuracy), round(10 * alone.accuracy)
    low, high = (round(10 * each) for each in (option.gain.low, option.gain.high))
    return [
        f"Of 1,000 new images like your test images, {option.title} labels about {here} correctly instead of {before}: "
        f"{here - before} more. With other training runs and other test images it may be {low} to {high} more (95% "
        "interval)."
    ]


def leaked(option: Option) -> list[str]:
    return [
        f"{option.title} was measured to gain {_points(option.gain)}. But {_copies(option.leak)}. If the classifier "
        f"labels these correctly because it has seen them, up to {option.leak.percent:.1f} points of the gain are not "
        "real, and what is left may be chance."
    ]


def _copies(leak: Leak) -> str:
    share = f"{counted(leak.images, 'test image')} ({leak.percent:.1f}%)"
    if not leak.is_judged:
        verb = "resembles" if leak.images == 1 else "resemble"
        return f"{share} {verb} images that it adds and may be the same pictures"
    known = f"people called images that it adds copies of {counted(leak.confirmed, 'test image')}"
    return known if leak.images == leak.confirmed else f"{known}, and in all there may be up to {share}"


def more_real(facts: Facts) -> list[str]:
    real = facts.more_real
    if real is None or not real.helps:
        return []
    return [
        f"For comparison: {_number(real.added)} more real images that you label yourself gain {_points(real.gain)}."
    ]


def certain(option: Option, facts: Facts) -> list[str]:
    chance = "less than 1 in 1,000" if option.gain.p < 0.001 else f"about {1000 * option.gain.p:.0f} in 1,000"
    corrected = f", corrected for {facts.tests} comparisons" if facts.tests > 1 else ""
    return [f"If it did not help at all, chance alone would show such a gain in {chance} studies{corrected}."]


def standing(facts: Facts, helping: list[Option], equal: list[Option]) -> list[str]:
    """How the recommended method stands to the others that help."""
    first, *others = helping
    if equal:
        rival, names = equal[0].title, _listed([each.title for each in equal])
        gap, help_too = facts.pairs[first.method, equal[0].method], "help" if len(equal) > 1 else "helps"
        return [
            f"It is not shown to be better than {names}, which {help_too} as well: measured {gap.points:+.1f} "
            f"percentage points over {rival}, while {gap.low:+.1f} to {gap.high:+.1f} fits the data.",
            *_separating(facts, gap, first.title, rival, len(others)),
        ]
    if len(others) > 1:
        return [f"It is better than each of the {len(others)} other methods that help."]
    if others:
        return [f"It is better than {others[0].title}, which helps too."]
    return ["It is the only method that is shown to help."] if len(facts.options) > 1 else []


def promising(facts: Facts, alone: Option) -> list[str]:
    """Where no method helps: what may still be, and what would tell."""
    undecided = [each for each in facts.options if not each.gain.counts]
    if not undecided:
        return []
    best = max(undecided, key=lambda each: each.gain.points)
    most = max(each.gain.high for each in undecided)
    sentences = ["That none is shown to help does not prove that none does."]
    if most < POINTLESS:
        return [
            f"You can stop here: with 95% confidence in each, no method gains more than {most:.1f} percentage points."
        ]
    if best.gain.points <= 0:
        return [*sentences, f"But none was measured to be better, and gains above {most:.1f} points are unlikely."]
    gain = best.gain
    sentences.append(
        f"The most promising is {best.title}: measured {gain.points:+.1f} percentage points, while anything from "
        f"{gain.low:+.1f} to {gain.high:+.1f} fits the data (95% interval)."
    )
    if best.leak.percent >= gain.points:
        sentences.append(f"But {_copies(best.leak)}: see `{best.review}` first.")
    return sentences + _separating(facts, gain, best.title, alone.title, facts.tests)


def _separating(facts: Facts, gap: Gain, one: str, other: str, tests: int) -> list[str]:
    """How many more runs would separate two methods."""
    if gap.spread is None:
        return []
    needed = power.needed(gap.points, gap.spread, LEVEL / tests)
    corrected = f", corrected for {tests} comparisons" if tests > 1 else ""
    terms = f"two-sided test at 5%{corrected}, power 80%, if the true difference is the measured one"
    if needed.runs is not None:
        more = max(1, needed.runs - facts.runs)
        runs = "1 more seed" if more == 1 else f"{more} more seeds"
        setting = f"set `runs: {facts.runs + more}`{_training(facts, more)}"
        return [f"Run {runs} of each method to separate {one} from {other}: {setting} ({terms})."]
    if needed.tested is not None:
        return [
            f"More seeds would not separate {one} from {other}; about {_number(needed.tested)} test images instead of "
            f"{_number(facts.tested)} could ({terms})."
        ]
    return [f"Not even {power.MOST_RUNS} seeds would separate {one} from {other} ({terms}): treat them as equal."]


def _training(facts: Facts, runs: int) -> str:
    """What so many more runs of all methods cost."""
    hours = sum(each.training for each in (*facts.options, facts.alone, facts.more_real) if each is not None)
    return "" if math.isnan(hours) else f", which takes {_hours(runs * hours, facts.unit)} for all methods"


def harmful(facts: Facts) -> list[str]:
    harmful = sorted((each for each in facts.options if each.harms), key=lambda each: each.gain.points)
    if not harmful:
        return []
    worst = harmful[0]
    lost = f"{-worst.gain.points:.1f} percentage points ({-worst.gain.high:.1f} to {-worst.gain.low:.1f})"
    return [
        f"Do not use {_listed([each.title for each in harmful])}: shown to make the classifier worse, {worst.title} by "
        f"{lost}."
    ]


def amounts(option: Option) -> list[str]:
    if not option.added:
        return ["None: it changes how the classifier is trained."]
    sentences = [f"{_number(option.added)}, that is {_ratio(option.ratio)}."]
    if not option.amounts:
        return [*sentences, "Other numbers were not tried: `scaling` in the study measures them."]
    tried = [f"{_percent(each.accuracy)} with {_ratio(each.ratio)}" for each in option.amounts]
    sentences.append(f"Accuracy was {_percent(option.accuracy)} with these, {', '.join(tried)}.")
    best = max(option.amounts, key=lambda each: each.accuracy)
    if _differs(best, option) and best.accuracy > option.accuracy:
        return [*sentences, f"Take {_ratio(best.ratio)}: the difference is more than chance between runs."]
    if _differs(best, option) or best.ratio > option.ratio:
        return [*sentences, "No other number is shown to be better."]
    return [*sentences, f"{_ratio(best.ratio).capitalize()} may do as well."]


def _differs(amount: Amount, option: Option) -> bool:
    if amount.error is None or option.error is None:
        return False
    return abs(amount.accuracy - option.accuracy) > ERRORS * (amount.error**2 + option.error**2) ** 0.5


def costs(option: Option, facts: Facts) -> list[str]:
    sentences = []
    if option.added:
        besides = f", and {_hours(option.searching, facts.unit)} for what was tried besides" if option.searching else ""
        took = "not known here" if math.isnan(option.hours) else f"{_hours(option.hours, facts.unit)}{besides}"
        sentences.append(f"Time to make its images: {took}.")
    if not math.isnan(option.training):
        instead = ""
        if facts.alone and not math.isnan(facts.alone.training):
            instead = f" instead of {_hours(facts.alone.training, facts.unit)} on your own images alone"
        sentences.append(f"Training a classifier takes {_hours(option.training, facts.unit)}{instead}.")
    downloads = list(option.downloads) or ["Nothing is downloaded."]
    return [*sentences, *downloads]


def against(option: Option, facts: Facts) -> list[str]:
    sentences = []
    if option.leak.images:
        copies = _copies(option.leak)
        sentences.append(
            f"{copies[0].upper()}{copies[1:]}. At most {option.leak.percent:.1f} points of its gain are not real for "
            f"that reason. See `{option.review}`."
        )
    if option.validation_leak >= LEAKY:
        sentences.append(
            f"{option.validation_leak:.1f}% of the validation images, by which training ends, resemble added ones."
        )
    if facts.recognised_test - option.recognised >= FAR:
        sentences.append(
            f"Its images are unlike yours: a classifier of real images recognises {option.recognised:.0f}% of them, "
            f"but {facts.recognised_test:.0f}% of the test images. Look at some before you rely on them."
        )
    sentences += option.terms
    if option.unchecked:
        sentences.append("Its images were not checked for unsafe content: look through them.")
    if option.short:
        sentences.append(f"{option.short}.")
    for each in (option, facts.alone):
        if each and each.capped:
            what = "its runs" if each is option else "the runs on your images alone"
            sentences.append(
                f"{each.capped} of {each.runs} of {what} ended at the largest number of epochs, before they had "
                "finished: set a higher `classifier: {max_epochs: ...}` before you trust the comparison."
            )
    if option.same_images:
        sentences.append("All runs added the same images: with others the gain may differ from what the interval says.")
    return sentences or ["Nothing that this study looked for."]


def untrained(facts: Facts) -> list[str]:
    """What CLIP recognises as it is, beside the study's own classifier at its best."""
    clip = facts.zero_shot
    if clip is None:
        return []
    trained = [each for each in (*facts.options, facts.alone, facts.more_real) if each is not None]
    best = max(trained, key=lambda each: each.accuracy)
    sentences = [
        f"CLIP ({clip.model}) labels {_percent(clip.accuracy)} of your test images correctly by the names of your "
        f"classes alone; the classifier of this study reaches {_percent(best.accuracy)} at best, with {best.title}."
    ]
    if clip.accuracy > best.accuracy:
        sentences.append("Compare methods with a pretrained classifier, too (docs/classifiers.md).")
    sentences.append("CLIP was trained on pictures of the web: it may have seen your test images.")
    return sentences


def unknown(facts: Facts) -> list[str]:
    sentences = []
    if facts.options and not any(each.retrieves for each in facts.options):
        sentences.append(
            "Whether retrieved images would help more: no pool was searched. To find out, name a `pool` and add "
            "`retrieval` to `methods` (docs/pools.md)."
        )
    if facts.options and not any(each.generates for each in facts.options):
        sentences.append(
            "Whether generated images would help more: none were. To find out, name a `backbone` and add "
            "`clip_prompts` to `methods` (docs/backbones.md)."
        )
    if facts.excluded:
        verb = "was" if facts.excluded == 1 else "were"
        plural = "class" if facts.excluded == 1 else "classes"
        sentences.append(f"Anything on {facts.excluded} {plural} that {verb} left out for every method.")
    sentences.append("Whether it holds for images unlike the test images, or for another classifier than this study's.")
    return sentences


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.1f}%"


def _points(gain: Gain) -> str:
    return f"{gain.points:.1f} percentage points ({gain.low:.1f} to {gain.high:.1f})"


def _ratio(ratio: float) -> str:
    return "one for each of your own" if ratio == 1 else f"{ratio:g} for each of your own"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:NAMED]) + ([f"{len(names) - NAMED} more"] if len(names) > NAMED else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _hours(hours: float, unit: str) -> str:
    if hours >= 1:
        return f"{hours:,.{0 if hours >= 10 else 1}f} {unit}"
    minutes, one = 60 * hours, unit.removesuffix("-hours")
    return f"{minutes:.0f} {one}-minutes" if minutes >= 1.5 else f"less than 2 {one}-minutes"
