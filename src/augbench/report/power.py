"""How many training runs, or test images, it takes to tell two methods apart: the power of the comparison's own test.

The test is that of :func:`augbench.report.comparison.difference`. More runs lower the variance that comes from
training; what comes from the test images stays, whatever the number of runs.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from augbench.report.comparison import CONFIDENCE

POWER = 0.8  # chance to separate two methods that differ by as much as was measured
MOST_RUNS = 100  # of a method; an estimate beyond it is not worth running


class Spread(NamedTuple):
    """The spread in which a difference of two methods' accuracies has to be seen: variances in squared percentage
    points."""

    one: float  # of the first method's accuracy from run to run
    other: float  # of the second's
    images: float  # of the mean difference, by the choice of the test images
    tested: int  # test images


class Needed(NamedTuple):
    """What would separate two methods: ``runs`` of each in all; None where no number up to ``MOST_RUNS`` does. Then
    ``tested`` test images are the fewest with which runs could; None where they could with these."""

    runs: int | None
    tested: int | None


def spread(low: float, high: float, freedom: float, runs: Sequence[Sequence[float]], tested: int) -> Spread:
    """The spread behind a row of :func:`augbench.report.comparison.differences`: from its 95% interval and its degrees
    of freedom, the accuracies (percent) of both methods' ``runs``, at least two each, and the number of test images.

    What the runs do not account for of the variance of the mean difference is that of the test images.
    """
    from scipy.stats import t

    error = (high - low) / 2 / float(t.ppf((1 + CONFIDENCE) / 2, freedom))
    one, other = (statistics.variance(accuracies) for accuracies in runs)
    images = error**2 - one / len(runs[0]) - other / len(runs[1])
    return Spread(one, other, max(0.0, images), tested)


def power(gap: float, spread: Spread, runs: int, level: float) -> float:
    """The chance that the two-sided test at ``level`` separates methods whose true difference is ``gap`` (percentage
    points), with so many runs of each (at least 2): by the noncentral t distribution."""
    from scipy.stats import nct, t

    parts = [spread.one / runs, spread.other / runs, spread.images]
    variance = sum(parts)
    if variance == 0:
        return float(gap != 0)
    freedoms = [runs - 1, runs - 1, spread.tested - 1]
    freedom = variance**2 / sum(part**2 / each for part, each in zip(parts, freedoms, strict=True))
    limit, shift = t.ppf(1 - level / 2, freedom), abs(gap) / math.sqrt(variance)
    if shift > limit + 30:  # where the distribution's own numbers give out
        return 1.0
    return float(nct.sf(limit, freedom, shift) + nct.cdf(-limit, freedom, shift))


def needed(gap: float, spread: Spread, level: float) -> Needed:
    """What it takes to separate two methods with a chance of ``POWER`` at ``level``, if ``gap`` is their true
    difference."""
    runs = next((n for n in range(2, MOST_RUNS + 1) if power(gap, spread, n, level) >= POWER), None)
    if runs is not None or not gap:
        return Needed(runs, None)
    images = spread.images * spread.tested / _largest_error(gap, level) ** 2
    return Needed(None, math.ceil(images) if images > spread.tested else None)


def _largest_error(gap: float, level: float) -> float:
    """The largest standard error with which a normal test at ``level`` has the power ``POWER`` for ``gap``."""
    from scipy.stats import norm

    return abs(gap) / float(norm.ppf(1 - level / 2) + norm.ppf(POWER))
