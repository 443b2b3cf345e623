"""What a study says of the methods among which one has to choose: plain data, of which the answer is made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from augbench.report import power
from augbench.report.comparison import LEVEL


class Gain(NamedTuple):
    """One method minus another, in percentage points of accuracy. All but the points are NaN where that is not tested,
    as with a single run."""

    points: float
    low: float = math.nan  # 95% interval
    high: float = math.nan
    p: float = math.nan  # corrected for the number of comparisons where one asks whether methods help
    spread: power.Spread | None = None

    @property
    def counts(self) -> bool:
        return self.p < LEVEL


class Leak(NamedTuple):
    """Test images that may be among the added ones."""

    images: int  # test images with a duplicate candidate; of judged ones the most there can be
    percent: float  # of the test images
    pairs: int = 0  # of candidates, for people to judge
    confirmed: int = 0  # test images that people call duplicates
    is_judged: bool = False  # completely, by people


UNTESTED, NO_LEAK = Gain(0.0), Leak(0, 0.0)


class Amount(NamedTuple):
    """Accuracy (percent) with another number of added images."""

    ratio: float
    accuracy: float  # where classes had to be left out, the worst case
    error: float | None


@dataclass(frozen=True)
class Option:
    """What is known of a method that may be recommended."""

    method: str
    title: str
    accuracy: float  # percent, mean over the runs
    runs: int
    error: float | None = None
    gain: Gain = UNTESTED  # over the target data alone
    added: int = 0  # images that a run adds to the training images
    ratio: float = 0.0  # added / training images that was asked for
    amounts: tuple[Amount, ...] = ()  # other ratios
    retrieves: bool = False
    generates: bool = False
    hours: float = math.nan  # to make its images; NaN where that was not measured
    searching: float = 0.0  # hours for what was tried besides: learning rates, checkpoints, further ratios
    training: float = math.nan  # hours of one classifier run; NaN where that was not measured
    downloads: tuple[str, ...] = ()
    leak: Leak = NO_LEAK
    review: str = ""  # page on which people judge duplicate candidates
    verdicts: str = ""  # where their verdicts belong
    validation_leak: float = 0.0  # percent of the validation images that resemble added ones
    further_leaks: tuple[tuple[str, float], ...] = ()  # the same of each further test set, by its name
    recognised: float = math.nan  # percent of the added images, by the judge of the domain gap
    terms: tuple[str, ...] = ()  # sentences on licences
    unchecked: bool = False  # for unsafe content
    short: str = ""  # a sentence on classes with too few images
    capped: int = 0  # runs that the largest number of epochs ended
    same_images: bool = False  # all runs add the same ones

    @property
    def helps(self) -> bool:
        return self.gain.counts and self.gain.points > 0

    @property
    def harms(self) -> bool:
        return self.gain.counts and self.gain.points < 0

    @property
    def is_trusted(self) -> bool:
        """Whether the method would be better even if all test images that may be among the added ones counted as
        wrong."""
        return self.leak.percent < self.gain.low


class ZeroShot(NamedTuple):
    """What a CLIP recognises of the test images by the names of the classes alone, in percent."""

    model: str
    accuracy: float


@dataclass(frozen=True)
class Facts:
    """What a study says, as :func:`answer` takes it."""

    study: str
    options: Sequence[Option]  # all methods but the target data alone and further real ones
    alone: Option | None  # the target data alone
    more_real: Option | None  # further real images of the target
    train: int  # training images
    tested: int  # test images
    runs: int  # of each method
    classifier: str = "this study's"  # its network
    unit: str = "core-hours"
    recognised_test: float = math.nan  # percent of the test images, by the judge of the domain gap
    zero_shot: ZeroShot | None = None
    excluded: int = 0  # classes left out for every method
    pairs: Mapping[tuple[str, str], Gain] = field(default_factory=dict)  # of two options; p by itself

    @property
    def tests(self) -> int:
        """How many methods are compared with the target alone."""
        return len(self.options) + (self.more_real is not None)
