"""The domain gap of each method that adds images."""

from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults


def gap(results: StudyResults) -> dict:
    """Rows of the domain gap table by family, and what the judge recognises of the test images (percent)."""
    known = results.domain_gap.set_index("method").to_dict("index")
    rows = [known[key] | results.plan.named(key) for key in results.plan.adding]
    return {"rows": rows, "recognised_test": rows[0]["recognised_test"]}


EXHIBITS = [
    Exhibit(
        name="domain_gap",
        section="gap",
        applies=lambda plan: bool(plan.adding),
        data=gap,
        caption="Domain gap per method, mean over the resampled sets.",
        template="report/domain_gap.html.j2",
    )
]
