"""What the first screen says of five made studies, and of others that cannot be answered: plain numbers in, sentences
out. Each text was read by somebody who was to act on it; what he would do stands beside it."""

import math
from itertools import permutations

import made_report as made
import pytest

from augbench.core import files
from augbench.report import page, power, study_page
from augbench.report.answer import answer, markdown
from augbench.report.options import Amount, Facts, Gain, Leak, Option
from augbench.report.study_options import facts

SPREAD = power.Spread(0.8, 0.8, 0.02, 2000)


def option(method, accuracy, gain=None, **known):
    """A method; ``gain`` is points, low, high and p over the target alone."""
    defaults = {"title": method.capitalize(), "runs": 5, "error": 0.4, "added": 500, "ratio": 1.0, "hours": 2.0}
    defaults |= {"training": 0.5, "recognised": 90.0, "generates": True, "leak": Leak(0, 0.0)}
    defaults |= {"review": f"results/birds/audit/{method}/review.html", "verdicts": f"verdicts/{method}.csv"}
    gain = Gain(*gain, spread=SPREAD) if gain else Gain(0.0)
    return Option(**defaults | {"method": method, "accuracy": accuracy, "gain": gain} | known)


def alone(**known):
    known = {"title": "Target data only", "added": 0, "ratio": 0.0, "hours": math.nan, "training": 0.25} | known
    return option("none", 80.0, recognised=math.nan, generates=False, **known)


RETRIEVAL = {"retrieves": True, "generates": False}


def study(*options, pairs=0.001, **known):
    """A study of birds; ``pairs`` is the p-value of any two options, or p-values by pair."""
    p = pairs if isinstance(pairs, dict) else {}
    differences = {
        (one.method, two.method): Gain(
            one.accuracy - two.accuracy, -2.0, 3.0, p.get((one.method, two.method), 0.001), SPREAD
        )
        for one, two in permutations(options, 2)
    }
    defaults = {"study": "birds", "options": options, "alone": alone(), "more_real": None, "train": 500, "tested": 2000}
    defaults |= {"runs": 5, "unit": "GPU-hours", "recognised_test": 92.0, "pairs": differences}
    return Facts(**defaults | known)


def said(found, label):
    """The text under a label; empty where there is none."""
    return " ".join(sentence for line in found["lines"] if line["label"] == label for sentence in line["sentences"])


def test_a_clear_winner():
    """One adds 500 retrieved images, knowing that they are worth 6 in 100 and that rights have to be cleared."""
    winner = option("retrieval", 86.0, (6.0, 4.9, 7.1, 0.0001), **RETRIEVAL, hours=1.5, searching=0.2,
                    terms=("No licence is recorded.",), downloads=("Downloads: 900.",))  # fmt: skip
    second = option("prompts", 82.0, (2.0, 0.9, 3.1, 0.01))
    found = answer(study(winner, second))
    assert found["verdict"] == "Use Retrieval." and found["case"] == "winner"
    assert said(found, "What to do") == (
        "Run `snakemake results/birds/export/retrieval/folder`, which copies your own 500 images and 500 retrieved "
        "images that Retrieval adds into one folder. Train on that folder."
    )
    assert said(found, "What you gain") == (
        "Of 1,000 new images like your test images, a classifier trained with Retrieval labels about 860 correctly, "
        "one trained on your own images alone 800: 60 more. Measured again, with other training runs and test images, "
        "it could be 49 to 71 more; such a range is right in 95 of 100 studies."
    )
    assert said(found, "How sure it is") == (
        "Retrieval almost certainly helps: if it made no difference, chance alone would show such a gain in fewer than "
        "1 of 1,000 studies like this one. Prompts helps too, but less."
    )
    assert said(found, "How many images").startswith("500: as many as you have yourself.")
    assert said(found, "What it costs") == (
        "Already spent to get its images: 1.5 GPU-hours, and 12 GPU-minutes for what was tried besides. Each training "
        "of a classifier takes 30 GPU-minutes instead of 15 GPU-minutes on your own images alone. Downloads: 900."
    )
    assert said(found, "What speaks against it") == "No licence is recorded."


def test_no_difference():
    """One adds nothing, and knows how much more it takes to find out."""
    first = option("prompts", 80.9, (0.9, -0.4, 2.2, 0.4))
    found = answer(study(first, option("lora", 79.9, (-0.1, -1.3, 1.1, 1.0)), option("r", 80.2, (0.2, -1, 1.4, 1.0))))
    assert found["verdict"] == "Train on your own images alone: no method is shown to help."
    assert found["case"] == "no difference"
    assert said(found, "What to do") == "Train on your own 500 images and add nothing."
    runs = power.needed(0.9, SPREAD, 0.05 / 3).runs
    assert said(found, "How sure it is") == (
        "Not sure: that none is shown to help leaves it open whether one does. The most promising is Prompts: of 1,000 "
        "images 9 more were labelled correctly than with your own images alone, but anything from 4 fewer to 22 more "
        "fits the data (such a range is right in 95 of 100 studies)."
    )
    assert said(found, "Optional") == (
        f"To separate Prompts from your own images alone, write `runs: {runs}` in your configuration file and run the "
        f"study again, as you did for this report: {runs - 5} more of each method than now; to train all {runs} will "
        f"take {1.75 * runs:.0f} GPU-hours. If the true difference is the measured one, 4 of 5 such studies show it."
    )
    assert not said(found, "What it costs")


def test_no_difference_that_is_worth_looking_for():
    found = answer(study(option("prompts", 80.2, (0.2, -0.3, 0.7, 0.4))))
    assert said(found, "How sure it is") == (
        "Sure enough to stop here: it is unlikely that any method labels more than 7 more of 1,000 images correctly "
        "(each method's range is right in 95 of 100 studies)."
    )


def test_harm():
    """One adds nothing, and leaves out what does harm."""
    worse = option("prompts", 77.0, (-3.0, -4.2, -1.8, 0.002))
    found = answer(study(worse, option("lora", 76.0, (-4.0, -5.2, -2.8, 0.001))))
    assert found["verdict"] == "Train on your own images alone: what was tried makes the classifier worse."
    assert found["case"] == "harm"
    assert said(found, "What to do") == (
        "Train on your own 500 images and add nothing. Do not use Lora or Prompts: of 1,000 images the classifier then "
        "gets fewer right, 40 fewer with Lora (28 to 52 fits the data), 30 fewer with Prompts (18 to 42 fits the data)."
    )
    assert said(found, "How sure it is") == (
        "Lora very probably does harm: if it made no difference, chance alone would show such a loss in about 1 of "
        "1,000 studies like this one. Prompts very probably does harm: if it made no difference, chance alone would "
        "show such a loss in about 2 of 1,000 studies like this one."
    )
    assert "Whether retrieved images would help: no pool" in said(found, "What this cannot say")
    undecided = answer(study(worse, option("lora", 80.5, (0.5, -0.9, 1.9, 0.5))))
    assert undecided["verdict"] == "Train on your own images alone: no method helps, and some do harm."
    assert "Do not use Prompts: of 1,000 images the classifier then gets" in said(undecided, "What to do")
    helped = answer(study(worse, option("lora", 84.0, (4.0, 2.9, 5.1, 0.001))))
    assert helped["verdict"] == "Use Lora." and "Do not use Prompts" in said(helped, "What to do")


LEAKY = {"leak": Leak(60, 3.0, pairs=71)}


def test_a_leak_that_could_be_the_whole_gain():
    """One opens the review page, or drops the leaks; until then one uses what is clean."""
    leaking = option("retrieval", 86.0, (4.0, 2.9, 5.1, 0.001), **RETRIEVAL, **LEAKY)
    found = answer(study(leaking))
    assert found["case"] == "leak"
    assert found["verdict"] == (
        "Train on your own images alone for now: what Retrieval adds may include copies of test images."
    )
    assert said(found, "What to do") == "Train on your own 500 images and add nothing."
    assert said(found, "Optional") == (
        "To see whether Retrieval is better, open `results/birds/audit/retrieval/review.html` and say of each of the "
        "71 pairs whether both are the same picture: an image that it adds, and a test image that it resembles. Save "
        "your verdicts by the page's button, put the file at `verdicts/retrieval.csv` and run the study again, as you "
        "did for this report. Or write `drop_leaks: true` in your configuration file and run the study again, as you "
        "did for this report: then those of its images that resemble test images are left out."
    )
    assert said(found, "What you gain") == (
        "With Retrieval, 40 more of 1,000 images are labelled correctly (29 to 51 fits the data). But 60 test images "
        "(3.0%) resemble images that it adds and may be the same pictures. A classifier labels pictures correctly that "
        "it has been shown before, which says nothing of new ones: up to 30 of the 40 may be due to that, and what "
        "is left may be chance."
    )
    clean = option("prompts", 83.0, (3.0, 1.9, 4.1, 0.001))
    found = answer(study(leaking, clean))
    assert found["verdict"].startswith("Use Prompts for now: what Retrieval adds may")
    assert said(found, "What to do").startswith("Run `snakemake results/birds/export/prompts/folder`, which copies")
    assert said(found, "What you gain").startswith(
        "Of 1,000 new images like your test images, a classifier trained with Prompts labels about 830"
    )


def test_a_leak_that_people_confirmed_and_one_that_matters_little():
    known = Leak(60, 3.0, confirmed=60, is_judged=True)
    found = answer(study(option("retrieval", 86.0, (4.0, 2.9, 5.1, 0.001), **RETRIEVAL, leak=known)))
    assert found["verdict"] == "Train on your own images alone for now: Retrieval adds copies of test images."
    assert "without these copies, write `drop_leaks: true` in" in said(found, "Optional")
    assert "people called images that it adds copies of 60 test images." in said(found, "What you gain")
    small = answer(study(option("retrieval", 86.0, (4.0, 2.9, 5.1, 0.001), **RETRIEVAL, leak=Leak(10, 0.5))))
    assert small["verdict"] == "Use Retrieval."
    assert said(small, "What speaks against it").startswith("10 test images (0.5%) resemble images that it adds")


def test_no_retrieval():
    """One uses what helps, and knows that what the paper found best was not tried."""
    found = answer(study(option("prompts", 84.0, (4.0, 2.9, 5.1, 0.001))))
    assert found["verdict"] == "Use Prompts."
    assert "no pool of images was named. To find out, name a `pool`" in said(found, "What this cannot say")
    other = answer(study(option("retrieval", 84.0, (4.0, 2.9, 5.1, 0.001), **RETRIEVAL)))
    assert "no pool of images" not in said(other, "What this cannot say")
    assert "Whether generated images would help more" in said(other, "What this cannot say")


def test_which_is_best_is_open():
    """Either is right; who has no time takes the one that costs little."""
    first = option("lora", 84.5, (4.5, 3.3, 5.7, 0.001), hours=9.0)
    second = option("prompts", 83.7, (3.7, 2.5, 4.9, 0.001), hours=1.0)
    far = option("retrieval", 82.0, (2.0, 0.8, 3.2, 0.02), **RETRIEVAL)
    found = answer(study(first, second, far, pairs={("lora", "prompts"): 0.3, ("lora", "retrieval"): 0.001}))
    assert found["verdict"] == "Use Lora or Prompts: which is better is open." and found["case"] == "open"
    assert "If computing time counts, take Prompts, which took 1.0 GPU-hours instead of 9.0 GPU-hours." in said(
        found, "What to do"
    )
    runs = power.needed(0.8, SPREAD, 0.05 / 2).runs
    assert (
        "It is not shown to be better than Prompts, which helps as well: of 1,000 images it labelled 8 more correctly "
        "than Prompts, while anything from 20 fewer to 30 more fits the data."
    ) in said(found, "How sure it is")
    assert f"To separate Lora from Prompts, write `runs: {runs}` in" in said(found, "How sure it is")


@pytest.mark.parametrize(
    ("spread", "words"),
    [
        (
            power.Spread(0.1, 0.1, 0.5, 500),
            "More runs would not separate Prompts from your own images alone, but ",
        ),
        (power.Spread(900.0, 900.0, 0.01, 500), "Not even 100 runs would separate Prompts from your own images alone"),
        (None, "fits the data (such a range is right in 95 of 100 studies)."),
    ],
)
def test_where_more_runs_do_not_tell(spread, words):
    prompts = option("prompts", 81.0)
    prompts = Option(**vars(prompts) | {"gain": Gain(1.0, -0.5, 2.5, 0.2, spread)})
    assert words in said(answer(study(prompts)), "How sure it is")


def test_what_speaks_against_a_method_is_named():
    worst = {
        "leak": Leak(2, 0.1),
        "validation_leak": 4.0,
        "further_leaks": (("sketch", 7.5),),
        "recognised": 30.0,
        "unchecked": True,
        "capped": 2,
    }
    worst |= {"short": "2 of 9 classes have fewer images", "same_images": True, "terms": ("Its licence is X.",)}
    found = answer(study(option("mine", 86.0, (6.0, 5.0, 7.0, 0.001), **worst), alone=alone(capped=1)))
    text = said(found, "What speaks against it")
    for words in (
        "2 test images (0.1%) resemble images", "4.0% of the validation images",
        "7.5% of the images of the further test set sketch resemble",
        "recognises 30% of them, but 92% of",
        "Its licence is X.", "not checked for unsafe content", "2 of 9 classes have fewer images.",
        "2 of 5 of its runs ended at the largest", "1 of 5 of the runs on your images alone ended",
        "All runs added the same images",
    ):  # fmt: skip
        assert words in text, words
    clean = answer(study(option("mine", 86.0, (6.0, 5.0, 7.0, 0.001))))
    assert said(clean, "What speaks against it") == "Nothing that this study looked for."


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        (
            [Amount(4.0, 89.0, 0.3)],
            "Take 4 times as many as you have yourself: the difference is more than chance between runs.",
        ),
        ([Amount(4.0, 86.3, 0.3)], "No other number is shown to be better."),
        ([Amount(0.5, 86.1, 0.3)], "0.5 times as many as you have yourself may do as well."),
        ([Amount(0.5, 82.0, 0.3)], "No other number is shown to be better."),
        (
            [],
            "ratios: [0.5, 2]}` in your configuration file and run the study again, as you did for this report.",
        ),
    ],
)
def test_how_many_images(amounts, words):
    method = option("mine", 86.0, (6.0, 5.0, 7.0, 0.001), amounts=tuple(amounts))
    assert said(answer(study(method)), "How many images").endswith(words)


def test_further_real_images_and_a_harder_augmentation():
    real = option("more_real", 88.0, (8.0, 7.0, 9.0, 0.001))
    harder = option("randaugment", 84.0, (4.0, 3.0, 5.0, 0.001), added=0, generates=False, hours=math.nan)
    found = answer(study(harder, more_real=real))
    assert said(found, "What to do") == "Train on your own 500 images with Randaugment; no image is added."
    assert "with 500 more real images that you label yourself, 80 more of 1,000 images are labelled correctly" in said(
        found, "What you gain"
    )


def test_studies_that_cannot_be_answered_say_what_is_missing():
    real = option("more_real", 88.0, (8.0, 7.0, 9.0, 0.001))
    nothing = answer(study(more_real=real))
    assert nothing["verdict"] == "No method that adds images was part of this study."
    assert "with 500 more real images that you label yourself, 80 more" in said(nothing, "What to do")
    without = answer(study(option("prompts", 84.0), alone=None))
    assert without["case"] == "no comparison" and "Add the method `none`" in said(without, "What to do")
    single = answer(study(option("prompts", 84.0, (4.0, math.nan, math.nan, math.nan))))
    assert single["case"] == "no comparison" and "`runs: 5`" in said(single, "What to do")


def test_markdown_is_the_same_text_and_data_are_no_markup():
    method = option("m", 86.0, (6.0, 5.0, 7.0, 0.001), title="A [link](x) <b> my_lora*")
    found = answer(study(method))
    text = markdown("birds_1", found)
    assert text.startswith(
        "# birds\\_1: Use A \\[link\\](x) \\<b> my\\_lora\\*.\n\n**What to do.** Run `snakemake results"
    )
    assert "`snakemake results/birds/export/m/folder`" in text
    assert text.count("\n**") == len(found["lines"])


# --- through the page, from the files of a study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.make_results(tmp_path_factory.mktemp("results") / "digits")


def without_leaks(folder, method):
    """The same results, but none of the method's images resembles a held-out one."""
    path = folder / "audit" / method / "summary.json"
    summary = files.read_json(path)
    for counts in summary["references"].values():
        counts.update(pairs=0, reference_images_with_candidate=0, added_images_with_candidate=0, share=0.0)
    files.write_json(path, summary)


def read(folder, methods, **settings):
    return made.results(folder, made.plan({key: made.METHODS[key] for key in methods}, **settings))


def test_a_leak_is_read_from_the_audit(folder):
    """One of ten test images has ten candidates; the gain is 6.8 points, that of the leak may be 10."""
    found = facts(read(folder, made.METHODS))
    by_method = {each.method: each for each in found.options}
    assert list(by_method) == ["clip_prompts", "ft", "retrieval"]
    assert by_method["retrieval"].leak == Leak(1, 10.0, pairs=10)
    assert by_method["retrieval"].gain.points == pytest.approx(6.8)
    assert by_method["clip_prompts"].capped == 3
    said_here = answer(found)
    assert said_here["case"] == "leak" and "1 test image (10.0%) resembles images" in said(said_here, "What you gain")


def test_a_clear_winner_is_read_from_the_files_and_shown(tmp_path):
    """97.0% against 90.2%, at ratio 4 at worst 97% of it; 10 images used of 26; retrieval is the first of three."""
    folder = made.make_results(tmp_path / "digits")
    for method in ("retrieval", "ft", "clip_prompts"):
        without_leaks(folder, method)
    results = read(folder, made.METHODS)
    part = study_page.section(results, {}, {})
    found = part["answer"]
    assert found["verdict"] == "Use Retrieval." and found["case"] == "winner"
    assert "labels about 970 correctly, one trained on your own images alone 902: 68 more." in said(
        found, "What you gain"
    )
    assert "The 2 other methods that help gain less." in said(found, "How sure it is")
    assert said(found, "What this cannot say").endswith("or for a classifier other than resnet50.")
    assert "Accuracy was 97.0% with these, 94.1% with 4 times as many as you have yourself." in said(
        found, "How many images"
    )
    assert said(found, "What it costs").endswith(
        "Already downloaded: 4 MB, from 19 of 25 links; the others no longer answer or were refused. 10 of these "
        "images are used. The model CLIP (ViT-L/14) was downloaded once."
    )
    assert "no licence is recorded" in said(found, "What speaks against it")
    files.write_json(folder / "page.json", part)
    page.write(folder / "report.html", [folder / "page.json"])
    text = (folder / "report.html").read_text()
    first = text[: text.index("<main>")]
    assert ">Use Retrieval.</h2>" in first
    assert "<dt>What it costs</dt>" in first
    assert "<code>snakemake results/digits/export/retrieval/folder</code>" in first
    assert "<strong>Retrieve.</strong>" in first  # the answer to the paper's question


def test_each_study_of_a_joined_page_is_answered_at_its_top(tmp_path):
    sections = []
    for name, methods in (("one", ["none", "clip_prompts"]), ("two", ["clip_prompts", "retrieval"])):
        folder = made.make_results(tmp_path / name)
        without_leaks(folder, "clip_prompts")
        part = study_page.section(read(folder, methods), {}, {})
        files.write_json(folder / "page.json", part | {"study": name})
        sections.append(folder / "page.json")
    page.write(tmp_path / "report.html", sections)
    text = (tmp_path / "report.html").read_text()
    first = text[: text.index("<main>")]
    assert 'id="one-answer"><span class="soft">Study <a href="#one">one</a></span>Use CLIP &lt;script&gt;' in first
    assert "no pool of images was named" in first  # no retrieval in the first
    assert "</span>This study cannot tell yet.</h2>" in first


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a `b` <c>", "a <code>b</code> &lt;c&gt;"), ("a ` <b>", "a ` &lt;b&gt;"), ("`<b>`", "<code>&lt;b&gt;</code>")],
)
def test_code_is_shown_as_code_and_all_is_escaped(text, shown):
    assert page.code(text) == shown
