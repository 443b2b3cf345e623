"""Accuracy over several draws of the target."""

from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults, records


def by_method(results: StudyResults) -> dict:
    """Rows of the table of draws by family; ``without`` is the title of the method that they are compared with."""
    rows, plan = {row["method"]: row for row in records(results.subsamples)}, results.plan
    return {
        "rows": [rows[key] | plan.named(key) for key in plan.methods],
        "without": plan.rows[plan.without].title if plan.without else None,
    }


def _caption(data: dict) -> str:
    row = data["rows"][0]
    return (
        f"Accuracy in percent over {row['draws']} draws of the target with {row['runs']} runs each (Table 1: the first "
        "draw). The standard error is that of nested means: it holds the spread of draws and of runs, for other draws "
        f"and runs on these test images, with {row['draws'] - 1} degrees of freedom. Differences are paired by draw, "
        "each p-value for itself."
    )


EXHIBITS = [
    Exhibit(
        name="subsamples",
        section="table1",
        applies=lambda plan: plan.settings.subsamples > 1,
        data=by_method,
        title="Several draws of the target",
        caption=_caption,
        template="report/subsamples.html.j2",
    )
]
