"""Reads a study's results as the facts that its answer is made of."""

import math
from collections.abc import Mapping
from pathlib import Path

from augbench import images
from augbench.models import families
from augbench.report import comparison, compute, power, sentences
from augbench.report.exhibits.compute import relative
from augbench.report.exhibits.duplicates import reviews
from augbench.report.exhibits.origins import origins
from augbench.report.options import UNTESTED, Amount, Facts, Gain, Leak, Option, ZeroShot
from augbench.report.results import StudyResults, records
from augbench.study.sections.models import Backbone, Clip


def facts(results: StudyResults) -> Facts:
    """The facts of a study."""
    plan, clip = results.plan, results.zero_shot
    known = _Known(results)
    real = plan.where(lambda method: method.start.is_real and method.start.adds_images)
    keys = [key for key in plan.methods if key != plan.without and key not in real]
    return Facts(
        study=plan.name,
        options=[known.option(key) for key in keys],
        alone=known.option(plan.without) if plan.without else None,
        more_real=known.option(real[0]) if real else None,
        train=sum(row["train"] for row in results.kept),
        tested=known.tested,
        runs=plan.settings.runs,
        classifier=plan.settings.classifier.model.replace("`", "'"),
        unit=known.costs["unit"],
        recognised_test=float(results.domain_gap["recognised_test"].iloc[0]) if plan.adding else math.nan,
        zero_shot=ZeroShot(clip["model"].replace("`", "'"), clip["accuracy"]) if clip else None,
        excluded=len(results.class_info) - len(results.kept),
        pairs={(one, other): known.gain(one, other) for one in keys for other in keys if one != other},
    )


class _Known:
    """What is read once for all methods."""

    def __init__(self, results: StudyResults):
        self.results, self.plan = results, results.plan
        rows = records(results.differences)
        self.pairs = {(row["method"], row["other"]): row for row in rows}
        self.pairs |= {(row["other"], row["method"]): comparison.turned(row) for row in rows}
        self.tested = int(results.per_class.drop_duplicates("class")["tested"].sum())
        self.costs = relative(results) if self.plan.augmenting else {"unit": _unit(results), "rows": []}
        self.hours = {row["method"]: row for row in self.costs["rows"]}
        self.origins = {row["method"]: row for row in origins(results)["rows"]} if self.plan.augmenting else {}
        self.judged = {item["method"]: item["sets"] for item in reviews(results)}
        self.recognised = results.domain_gap.set_index("method")["recognised"] if self.plan.adding else {}
        self.training = _training(results)

    def gain(self, one: str, other: str) -> Gain:
        """One method minus another; ``p`` is corrected where the table corrects it."""
        row = self.pairs[one, other]
        spread = None
        if row["df"] is not None:
            runs = [self.results.summary[key]["accuracies"] for key in (one, other)]
            spread = power.spread(row["low"], row["high"], row["df"], runs, self.tested)
        helps = row["question"] == comparison.HELPS
        low, high, p = (row[name] for name in ("low", "high", "p_holm" if helps else "p"))
        return Gain(row["difference"]) if p is None else Gain(row["difference"], low, high, p, spread)

    def option(self, key: str) -> Option:
        plan, summary, start = self.plan, self.results.summary[key], self.plan.rows[key].start
        main, *further = summary["scaling"]
        parts = [plan.rows[part].start for part in plan.unions.get(key, [key])]
        origin = self.origins.get(key, {"checked": True, "short": ""})
        return Option(
            method=key,
            title=summary["title"].replace("`", "'"),  # which marks code
            accuracy=summary["accuracy_mean"],
            error=summary["accuracy_se"],
            runs=summary["runs"],
            gain=self.gain(key, plan.without) if plan.without and key != plan.without else UNTESTED,
            added=round(main["added"]),
            ratio=summary["asked_ratio"],
            amounts=tuple(Amount(row["ratio"], row["accuracy_worst"], row["accuracy_se"]) for row in further),
            retrieves=any(part.is_retrieved for part in parts),
            generates=any(part.is_generated for part in parts),
            training=self.training.get(key, math.nan),
            recognised=float(self.recognised[key]) if key in self.recognised else math.nan,
            unchecked=not origin["checked"],
            short=origin["short"],
            capped=summary["at_cap"],
            same_images=summary["sets"] == 1 and summary["runs"] > 1 and not start.is_real,
            **self._sources(key),
            **self._leaks(key),
        )

    def _sources(self, key: str) -> dict:
        """What a method's images took, and under which terms they are."""
        if key not in self.plan.augmenting:
            return {}
        row = self.hours.get(key, {"total": math.nan, "searching": 0.0})
        parts = list(self.plan.unions.get(key, [key]))
        elsewhere = any(self.plan.rows[part].start.is_external for part in parts)
        return {
            "hours": math.nan if elsewhere else row["total"],
            "searching": row["searching"],
            "downloads": tuple(dict.fromkeys(text for part in parts for text in self._downloads(part))),
            "terms": tuple(dict.fromkeys(text for part in parts for text in self._terms(part, key))),
        }

    def _downloads(self, key: str) -> list[str]:
        """Sentences on what is downloaded for a method's images."""
        settings, method = self.plan.settings, self.plan.rows[key]
        if method.start.is_generated:
            backbone = settings.backbone_of(method)
            return _model(backbone) if backbone else []
        if not method.start.is_retrieved:
            return []
        links = self.results.pool_links
        texts = [sentences.whole_pool(links["asked"], links["answered"], links["bytes"])] if links["asked"] else []
        if key in self.results.files.hosts:  # not of a method that only lends a union its images
            links, used = self.results.links(key), int(self.results.funnel(key)["used"].sum())
            if links["asked"]:
                texts.append(sentences.links(links["asked"], links["answered"], links["bytes"], used))
        return texts + _clip(settings.clip)

    def _terms(self, part: str, key: str) -> list[str]:
        """Sentences on the licences of the images that a method adds by itself, or a union takes from ``part``."""
        method, settings = self.plan.rows[part], self.plan.settings
        columns = ["model", "licence", "method"]
        table = images.read_columns(self.results.files.added[key], columns=columns)
        if part != key:
            table = table[table["method"] == part]
        models, licences = (", ".join(sorted(set(table[name].dropna()) - {""})) for name in ("model", "licence"))
        if licences:
            made = f"by {models} " if models else ""
            return [f"Its images were made {made}under the licence {licences}: read its terms before you publish them."]
        if models or method.start.is_external:
            return [f"The licence of {models or 'its images'} is not recorded: look it up before you publish anything."]
        if method.start.is_retrieved and settings.pool and not settings.pool.source.is_built_in:
            return [
                "Its images belong to others and no licence is recorded: clear the rights before you "
                "publish them, or a classifier that was trained on them."
            ]
        return []

    def _leaks(self, key: str) -> dict:
        """What the audit, or people who judged its candidates, say of a method."""
        if key not in self.plan.augmenting:
            return {}
        references = self.results.audit(key)["references"]
        shares = {name: 100 * counts["share"] for name, counts in references.items()}
        further = tuple((name, shares[name]) for name in self.plan.settings.evaluate if shares.get(name))
        leak = _leak(references["test"], self.judged.get(key, {}).get("test"))
        review = self.results.files.reviews[key]
        verdicts = f"resources/verdicts/{self.plan.name}/{key}.csv"
        known = {"leak": leak, "review": review, "verdicts": verdicts}
        return known | {"validation_leak": shares.get("validation", 0.0), "further_leaks": further}


def _leak(counts: Mapping, judged: Mapping | None) -> Leak:
    pairs, confirmed = counts["pairs"], judged["leaked"] if judged else 0
    if judged is None or judged["state"] == "part":
        return Leak(counts["reference_images_with_candidate"], 100 * counts["share"], pairs, confirmed)
    return Leak(judged["leaked_high"], judged["drop_high"], pairs, confirmed, is_judged=True)


def _model(backbone: Backbone) -> list[str]:
    if backbone.model is None or Path(backbone.model).is_dir():
        return []
    family = families.of_name(backbone.model)
    return [sentences.model(backbone.model, family.bytes if family else None)]


def _clip(clip: Clip | None) -> list[str]:
    if clip is None or clip.model is None or Path(clip.model.removeprefix("hf_clip:")).is_dir():
        return []
    return [sentences.model(f"CLIP ({clip.model})", None)]


def _unit(results: StudyResults) -> str:
    return compute.unit(compute.table(compute.jobs_of(results.measurements)))


def _training(results: StudyResults) -> dict[str, float]:
    """Method -> hours of one classifier run at the main ratio, where they were measured."""
    sums = compute.hours(compute.table(compute.jobs_of(results.measurements)))
    spent = sums[sums["stage"] == "classify"].set_index(["method", "part"])["spent"]
    main = {key: (key, f"x{results.plan.ratios(key)[0]:g}") for key in results.plan.methods}
    return {key: float(spent[place]) / results.plan.settings.runs for key, place in main.items() if place in spent}
