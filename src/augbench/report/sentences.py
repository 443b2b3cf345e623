"""The sentences of a study's answer, for readers who know no statistics: accuracies and gains are told as images of
1,000, which percentage points are not for everybody."""

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
ALONE = "your own images alone"
FILE = "in your configuration file"
AGAIN = "and run the study again, as you did for this report"
WORKS = "If the true difference is the measured one, 4 of 5 such studies show it."
EVIDENCE = ((0.01, "probably"), (0.001, "very probably"), (0.0, "almost certainly"))  # by the least p-value


def own_images(facts: Facts) -> list[str]:
    return [f"Train on your own {_number(facts.train)} images and add nothing."]


def recipe(option: Option, facts: Facts) -> list[str]:
    if not option.added:
        return [f"Train on your own {_number(facts.train)} images with {option.title}; no image is added."]
    return [
        f"Run `snakemake results/{facts.study}/export/{option.method}/folder`, which copies your own "
        f"{_number(facts.train)} images and {_number(option.added)}{_kind(option)} images that {option.title} adds "
        "into one folder. Train on that folder."
    ]


def _kind(option: Option) -> str:
    kinds = [word for word, is_one in (("retrieved", option.retrieves), ("generated", option.generates)) if is_one]
    return f" {' and '.join(kinds)}" if kinds else ""


def judging(option: Option) -> list[str]:
    """How to find out whether a method's gain is real, where nobody looked at its candidates."""
    pairs = counted(option.leak.pairs, "pair")
    return [
        f"To see whether {option.title} is better, open `{option.review}` and say of each of the {pairs} whether "
        "both are the same picture: an image that it adds, and a test image that it resembles. Save your verdicts by "
        f"the page's button, put the file at `{option.verdicts}` {AGAIN}. Or write `drop_leaks: true` {FILE} {AGAIN}: "
        "then those of its images that resemble test images are left out."
    ]


def cleaning(option: Option) -> list[str]:
    """How to use a method that adds copies of test images."""
    return [f"To see whether {option.title} helps without these copies, write `drop_leaks: true` {FILE} {AGAIN}."]


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
    return [
        f"Of 1,000 new images like your test images, a classifier trained with {option.title} labels about {here} "
        f"correctly, one trained on your own images alone {before}: {here - before} more. Measured again, with other "
        f"training runs and test images, it could be {_range(option.gain)} more; such a range is right in 95 of 100 "
        "studies."
    ]


def leaked(option: Option) -> list[str]:
    return [
        f"With {option.title}, {_gain(option.gain)}. But {_copies(option.leak)}. A classifier labels "
        "pictures correctly that it has been shown before, which says nothing of new ones: up to "
        f"{_thousand(option.leak.percent)} of the {_thousand(option.gain.points)} may be due to that, and what is left "
        "may be chance."
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
    return [f"For comparison: with {_number(real.added)} more real images that you label yourself, {_gain(real.gain)}."]


def certain(option: Option, facts: Facts) -> list[str]:
    return [_evidence(option, f"{option.title} {{}} helps", "gain")]


def _evidence(option: Option, claim: str, effect: str) -> str:
    """How sure it is that a method makes a difference; p is corrected for the number of methods."""
    p = option.gain.p
    chance = "fewer than 1" if p < 0.001 else f"about {1000 * p:.0f}"
    words = next(words for least, words in EVIDENCE if p >= least)
    return (
        f"{claim.format(words)}: if it made no difference, chance alone would show such a {effect} in {chance} of "
        "1,000 studies like this one."
    )


def standing(facts: Facts, helping: list[Option], equal: list[Option]) -> list[str]:
    """How the recommended method stands to the others that help."""
    first, *others = helping
    if equal:
        rival, names = equal[0].title, _listed([each.title for each in equal])
        gap, help_too = facts.pairs[first.method, equal[0].method], "help" if len(equal) > 1 else "helps"
        return [
            f"It is not shown to be better than {names}, which {help_too} as well: of 1,000 images it labelled "
            f"{_differing(gap.points)} correctly than {rival}, while {_between(gap)} fits the data.",
            *_inseparable(facts, gap, first.title, rival, len(others)),
            *_separating(facts, gap, first.title, rival, len(others)),
        ]
    if len(others) > 1:
        return [f"The {len(others)} other methods that help gain less."]
    if others:
        return [f"{others[0].title} helps too, but less."]
    return ["It is the only method that is shown to help."] if len(facts.options) > 1 else []


def promising(facts: Facts) -> list[str]:
    """Where no method helps: what may still be, and what would tell."""
    undecided = _undecided(facts)
    if not undecided:
        return []
    best, most = undecided[0], max(each.gain.high for each in undecided)
    if most < POINTLESS:
        return [
            f"Sure enough to stop here: it is unlikely that any method labels more than {_thousand(most)} more of "
            "1,000 images correctly (each method's range is right in 95 of 100 studies)."
        ]
    sentences = ["Not sure: that none is shown to help leaves it open whether one does."]
    if best.gain.points <= 0:
        return [
            *sentences,
            f"But none was measured to be better, and more than {_thousand(most)} more of 1,000 images are unlikely.",
        ]
    gain = best.gain
    sentences.append(
        f"The most promising is {best.title}: of 1,000 images {_differing(gain.points)} were labelled correctly than "
        f"with {ALONE}, but {_between(gain)} fits the data (such a range is right in 95 of 100 studies)."
    )
    if best.leak.percent >= gain.points:
        sentences.append(f"But {_copies(best.leak)}: see `{best.review}` first.")
    return sentences + _inseparable(facts, gain, best.title, ALONE, facts.tests)


def more_runs(facts: Facts) -> list[str]:
    """Where no method helps: how to be sure of the most promising."""
    undecided = _undecided(facts)
    if not undecided or undecided[0].gain.points <= 0 or max(each.gain.high for each in undecided) < POINTLESS:
        return []
    return _separating(facts, undecided[0].gain, undecided[0].title, ALONE, facts.tests)


def _undecided(facts: Facts) -> list[Option]:
    """The methods that are shown neither to help nor to do harm, the most promising first."""
    return sorted((each for each in facts.options if not each.gain.counts), key=lambda each: -each.gain.points)


def _separating(facts: Facts, gap: Gain, one: str, other: str, tests: int) -> list[str]:
    """How many more runs would separate two methods; nothing where none would."""
    runs = None if gap.spread is None else power.needed(gap.points, gap.spread, LEVEL / tests).runs
    if runs is None:
        return []
    more = max(1, runs - facts.runs)
    return [
        f"To separate {one} from {other}, write `runs: {facts.runs + more}` {FILE} {AGAIN}: {more} more of each method "
        f"than now{_training(facts, facts.runs + more)}. {WORKS}"
    ]


def _inseparable(facts: Facts, gap: Gain, one: str, other: str, tests: int) -> list[str]:
    """What else would separate two methods, where no number of runs would."""
    if gap.spread is None:
        return []
    needed = power.needed(gap.points, gap.spread, LEVEL / tests)
    if needed.runs is not None:
        return []
    if needed.tested is not None:
        return [
            f"More runs would not separate {one} from {other}, but about {_number(needed.tested)} test images instead "
            f"of {_number(facts.tested)} could. {WORKS}"
        ]
    return [f"Not even {power.MOST_RUNS} runs would separate {one} from {other}: treat them as equal."]


def _training(facts: Facts, runs: int) -> str:
    """What so many runs of all methods cost; all are trained again, as their sets are drawn together."""
    hours = sum(each.training for each in (*facts.options, facts.alone, facts.more_real) if each is not None)
    return "" if math.isnan(hours) else f"; to train all {runs} will take {_hours(runs * hours, facts.unit)}"


def certain_harm(facts: Facts) -> list[str]:
    """How sure it is that methods do harm."""
    harmful = _harmful(facts)
    return [_evidence(each, f"{each.title} {{}} does harm", "loss") for each in harmful[:NAMED]]


def _harmful(facts: Facts) -> list[Option]:
    """The methods that do harm, the worst first."""
    return sorted((each for each in facts.options if each.harms), key=lambda each: each.gain.points)


def harmful(facts: Facts) -> list[str]:
    harmful = _harmful(facts)
    if not harmful:
        return []
    losses = [
        f"{_thousand(-each.gain.points)} fewer with {each.title} ({_thousand(-each.gain.high)} to "
        f"{_thousand(-each.gain.low)} fits the data)"
        for each in harmful[:NAMED]
    ]
    return [
        f"Do not use {_listed([each.title for each in harmful])}: of 1,000 images the classifier then gets fewer "
        f"right, {', '.join(losses)}."
    ]


def amounts(option: Option) -> list[str]:
    if not option.added:
        return ["None: it changes how the classifier is trained."]
    sentences = [f"{_number(option.added)}: {_ratio(option.ratio)}."]
    if not option.amounts:
        return [
            *sentences,
            "Other numbers were not tried. To try half and twice as many, write `scaling: {methods: "
            f"[{option.method}], ratios: [{option.ratio / 2:g}, {2 * option.ratio:g}]}}` {FILE} {AGAIN}.",
        ]
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
        sentences.append(f"Already spent to get its images: {took}.")
    if not math.isnan(option.training):
        instead = ""
        if facts.alone and not math.isnan(facts.alone.training):
            instead = f" instead of {_hours(facts.alone.training, facts.unit)} on your own images alone"
        sentences.append(f"Each training of a classifier takes {_hours(option.training, facts.unit)}{instead}.")
    downloads = list(option.downloads) or ["No image or model is downloaded for it."]
    return [*sentences, *downloads]


def links(asked: int, answered: int, sent: int, used: int) -> str:
    """What is downloaded where images are fetched one by one."""
    return (
        f"Already downloaded: {size(sent)}, from {_number(answered)} of {_number(asked)} links; the others no longer "
        f"answer or were refused. {_number(used)} of these images are used."
    )


def whole_pool(asked: int, answered: int, sent: int) -> str:
    """What is downloaded where a pool is fetched before it is searched."""
    return (
        f"Already downloaded: {size(sent)}, for the whole pool: {_number(answered)} of its {_number(asked)} links "
        "still answer."
    )


def model(name: str, needed: float | None) -> str:
    """A model that is downloaded."""
    return f"The model {name} was downloaded once{'' if needed is None else f', about {size(needed)}'}."


def against(option: Option, facts: Facts) -> list[str]:
    sentences = []
    if option.leak.images:
        copies = _copies(option.leak)
        sentences.append(
            f"{copies[0].upper()}{copies[1:]}. Of its gain, at most {_thousand(option.leak.percent)} of 1,000 images "
            f"are not real for that reason. See `{option.review}`."
        )
    if option.validation_leak >= LEAKY:
        sentences.append(
            f"{option.validation_leak:.1f}% of the validation images, by which training ends, resemble added ones: it "
            "may end too late."
        )
    for name, percent in option.further_leaks:
        sentences.append(
            f"{percent:.1f}% of the images of the further test set {name} resemble images that it adds: accuracy there "
            "may be too high."
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
    help_more = "help more" if any(each.helps for each in facts.options) else "help"
    if facts.options and not any(each.retrieves for each in facts.options):
        sentences.append(
            f"Whether retrieved images would {help_more}: no pool of images was named. To find out, name a `pool` and "
            f"add `retrieval` to `methods` {FILE} (docs/pools.md) {AGAIN}."
        )
    if facts.options and not any(each.generates for each in facts.options):
        sentences.append(
            f"Whether generated images would {help_more}: none were made. To find out, name a `backbone` "
            f"and add `clip_prompts` to `methods` {FILE} (docs/backbones.md) {AGAIN}."
        )
    if facts.excluded:
        verb = "was" if facts.excluded == 1 else "were"
        plural = "class" if facts.excluded == 1 else "classes"
        sentences.append(f"Anything on {facts.excluded} {plural} that {verb} left out for every method.")
    sentences.append(
        f"Whether it holds for images unlike the test images, or for a classifier other than {facts.classifier}."
    )
    return sentences


def size(count: float) -> str:
    """Bytes in decimal units, as disks and contracts have them."""
    if count >= 1e9:
        return f"{count / 1e9:,.{0 if count >= 1e10 else 1}f} GB"
    return f"{count / 1e6:,.0f} MB" if count >= 1.5e6 else "less than 2 MB"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.1f}%"


def _thousand(points: float) -> str:
    """Percentage points as images of 1,000."""
    return _number(round(10 * points))


def _range(gain: Gain) -> str:
    return f"{_thousand(gain.low)} to {_thousand(gain.high)}"


def _gain(gain: Gain) -> str:
    return f"{_thousand(gain.points)} more of 1,000 images are labelled correctly ({_range(gain)} fits the data)"


def _differing(points: float) -> str:
    """Images of 1,000 by which one method differs from another."""
    count = round(10 * points)
    return f"{_number(abs(count))} {'more' if count >= 0 else 'fewer'}"


def _between(gain: Gain) -> str:
    return f"anything from {_differing(gain.low)} to {_differing(gain.high)}"


def _ratio(ratio: float) -> str:
    return "as many as you have yourself" if ratio == 1 else f"{ratio:g} times as many as you have yourself"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:NAMED]) + ([f"{len(names) - NAMED} more"] if len(names) > NAMED else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _hours(hours: float, unit: str) -> str:
    if hours >= 1:
        return f"{hours:,.{0 if hours >= 10 else 1}f} {unit}"
    minutes, one = 60 * hours, unit.removesuffix("-hours")
    return f"{minutes:.0f} {one}-minutes" if minutes >= 1.5 else f"less than 2 {one}-minutes"
