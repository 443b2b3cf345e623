"""What the study cost to compute: time per stage, and each method's images relative to retrieval."""

from collections.abc import Mapping

from augbench.core import benchmarks
from augbench.report import compute
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults
from augbench.study import classes


def stages(results: StudyResults) -> list[dict]:
    return benchmarks.stage_times(results.measurements).to_dict("records")


def relative(results: StudyResults) -> dict:
    """Rows of :func:`augbench.report.compute.relative`, their unit, GPUs, and the hours (least, most) that the
    classifiers of a method took at the main ratio (ratio 0 of the target data alone)."""
    plan, paper = results.plan, results.paper_compute
    sums = compute.table(compute.jobs_of(results.measurements))
    parts = [part for shares in plan.unions.values() for part in shares]
    methods = {key: plan.rows[key] for key in dict.fromkeys([*plan.augmenting, *parts])}
    kept = {key: results.selection(key)["candidate"].split("_")[0] for key in results.files.selections}
    images = {key: _images(results, key) for key in results.files.generated}
    classifier = paper[paper["stage"] == "classify"].iloc[0]
    spent = compute.hours(sums)
    main = {f"x{plan.ratios(key)[0]:g}" for key in plan.methods}
    spent = spent[(spent["stage"] == "classify") & spent["part"].isin(main)].groupby("method")["spent"].sum()
    return {
        "unit": compute.unit(sums),
        "rows": compute.relative(sums, methods, paper, images, kept, plan.unions) if len(sums) else [],
        "gpus": sorted(set(", ".join(sums["gpus"]).split(", ")) - {""}),
        "classifier": [float(spent.min()), float(spent.max())] if len(spent) else None,
        "paper_classifier": [float(classifier["hours"]), float(classifier["hours_most"])],
    }


def _images(results: StudyResults, method: str) -> compute.Images:
    """How many images a method generated for Table 1, and in all."""
    amount = results.plan.rows[method].generation(results.plan.settings.generate)
    wanted = sum(classes.generated(row["wanted"], amount.times, amount.images_per_class) for row in results.kept)
    return compute.Images(wanted, results.count_generated(method))


def _relative_caption(data: Mapping) -> str:
    gpus = f" ({', '.join(data['gpus'])}; jobs without GPU by the clock)" if data["gpus"] else ", as no job had a GPU"
    classifiers = ""
    if data["classifier"]:
        (least, most), paper = data["classifier"], data["paper_classifier"]
        classifiers = (
            f", here {least:,.2f} to {most:,.2f} for those of a method in Table 1, in the paper {paper[0]:,.0f} to "
            f"{paper[1]:,.0f}"
        )
    return (
        f"{data['unit']} to make the images that Table 1 draws from{gpus}, beside the paper’s GPU-hours for 10% "
        "ImageNet (its retrieval: hours of a machine without GPU). Adapting: one fine-tuning, at the learning rate "
        "that was kept. Generating or retrieving: the time for all images that the method made, times the share of "
        "them that Table 1 draws from; of a union, its shares of its methods’ times. Besides: what else it took here, "
        "on which the paper is silent: other learning rates, the images and classifiers by which candidates were "
        "compared, and images for further ratios. Attempts that were cut short are counted. Left out is what serves "
        f"all methods: backbone, latents, the pool, and the classifiers{classifiers}."
    )


EXHIBITS = [
    Exhibit(
        name="stages",
        section="compute",
        data=stages,
        caption=(
            "Time of all jobs of a stage, added up; jobs that ran side by side each count in full. Memory is that of "
            "the largest job."
        ),
        template="report/stages.html.j2",
    ),
    Exhibit(
        name="relative",
        section="relative",
        applies=lambda plan: bool(plan.augmenting),
        data=relative,
        caption=_relative_caption,
        template="report/relative.html.j2",
    ),
]
