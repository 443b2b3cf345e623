"""A study as its configuration describes it: which exhibits its report has follows from this alone."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cached_property

from augbench.report import families
from augbench.study import unions
from augbench.study.config import Study
from augbench.study.methods import Method

FIGURE_FILES = ("svg", "pdf", "csv")  # of each figure: twice drawn, and its data


class Plan:
    """A study's name, settings and methods, the latter grouped by family as in the paper's Table 1."""

    def __init__(self, name: str, settings: Study, methods: Mapping[str, Method]):
        self.name, self.settings = name, settings
        self.rows = methods  # also of methods that are here for their images alone, which a union takes
        compared = {key: method for key, method in methods.items() if key in settings.methods}
        self.colours = families.colours(method.family for method in [*compared.values(), *methods.values()])
        groups = list(self.colours)
        self.methods = dict(sorted(compared.items(), key=lambda item: groups.index(item[1].family)))

    @classmethod
    def of_rows(cls, name: str, settings: Mapping, methods: Mapping[str, Mapping]) -> "Plan":
        """The plan of a study whose configuration comes as plain data, as in a job's parameters."""
        rows = {key: Method.model_validate(row) for key, row in methods.items()}
        return cls(name, Study.model_validate(settings), rows)

    def where(self, holds: Callable[[Method], bool]) -> list[str]:
        """The methods of which something holds."""
        return [key for key, method in self.methods.items() if holds(method)]

    @cached_property
    def without(self) -> str | None:
        """The method that trains on the target alone, with which the others are compared."""
        return next(iter(self.where(lambda method: method.is_target_alone)), None)

    @cached_property
    def adding(self) -> list[str]:
        return self.where(lambda method: method.start.adds_images)

    @cached_property
    def augmenting(self) -> list[str]:
        """Methods that add images other than further real ones of the target."""
        return self.where(lambda method: method.start.adds_images and not method.start.is_real)

    @cached_property
    def unions(self) -> dict[str, dict[str, Fraction]]:
        """Of each union the methods whose images it takes, and the share of each."""
        return {key: unions.shares_of(key, self.rows) for key in self.where(lambda method: method.start.is_union)}

    @cached_property
    def in_unions(self) -> list[str]:
        """Methods that are here for their images alone, which a union takes."""
        return [key for key in self.rows if key not in self.methods]

    @cached_property
    def generating(self) -> list[str]:
        return self.where(lambda method: method.start.is_generated)

    @cached_property
    def retrieving(self) -> list[str]:
        return self.where(lambda method: method.start.is_retrieved)

    @cached_property
    def kinds(self) -> list[list[str]]:
        """Methods that generate, that retrieve, whose images are made elsewhere, and unions."""
        external = self.where(lambda method: method.start.is_external)
        return [self.generating, self.retrieving, external, list(self.unions)]

    @cached_property
    def varying(self) -> list[str]:
        """Methods that generate variations of training images."""
        return self.where(lambda method: method.start.begins_from_images)

    @cached_property
    def finetuned(self) -> list[str]:
        return self.where(lambda method: method.start.is_generated and bool(method.trained))

    @cached_property
    def prompted(self) -> list[str]:
        """Methods that generate from prompts with the diffusion model as it is."""
        return self.where(_prompted)

    @cached_property
    def prompted_after_finetuning(self) -> list[str]:
        """Fine-tuned methods that still generate from various prompts."""
        return self.where(lambda method: bool(method.trained) and method.start.is_generated and _keeps_prompts(method))

    @cached_property
    def clustered(self) -> list[str]:
        return self.where(lambda method: method.clusters > 1)

    @cached_property
    def scaled(self) -> list[str]:
        """Methods that are measured at several augmentation ratios."""
        return [key for key in self.methods if len(self.ratios(key)) > 1]

    @property
    def compared(self) -> bool:
        """Whether one of the report's questions compares methods of this study."""
        return bool((self.without and len(self.methods) > 1) or (self.retrieving and self.generating))

    def ratios(self, method: str) -> list[float]:
        """The augmentation ratios of a method, the main one first."""
        return self.methods[method].start.ratios(self.settings.wanted_ratios(method))

    @property
    def dataset(self) -> str | None:
        """Which of the paper's data sets the study uses; None for another."""
        return paper_dataset(self.settings)

    def named(self, method: str) -> dict:
        """What every exhibit says of a method: its key, title, family and the family's colour."""
        row = self.rows[method]
        colour = self.colours.get(row.family, families.NEUTRAL)
        return {"method": method, "title": row.title, "family": row.family, "colour": colour}


def paper_dataset(study: Study) -> str | None:
    """Which of the paper's data sets a study uses, as its table of results names it; None for another."""
    return None if study.dataset.shots else study.target.reader.paper_datasets.get(study.dataset.train)


def _prompted(method: Method) -> bool:
    start = method.start
    return start.is_generated and method.conditioning is not None and not method.trained


def _keeps_prompts(method: Method) -> bool:
    """Whether a fine-tuned method is guided by texts rather than by an encoding learned in their place."""
    return all(part.keeps_prompts for part in method.trained)
