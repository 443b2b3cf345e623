"""What of a network is trained as a classifier: a class for each value of ``classifier: {train: ...}``, and the table
of them.

Nothing else in the program compares these with a string: it asks the object. A new one is a class here and a row of
``ADAPTATIONS``.
"""

PROBE_UNIT = "log10_C"


class Adaptation:
    """What the program asks of an adaptation. ``settings`` is the section ``classifier`` of the configuration."""

    name: str
    meaning: str  # for the reference of the configuration
    freezes = True  # all but the last layer stays as it was pretrained
    is_probe = False  # the last layer is a logistic regression on features, which are computed once
    unit: str | None = None  # in which the history counts; None: the budget says
    account: str | None = None  # for the caption of Table 1, likewise

    def check_recipe(self, recipe) -> None:
        """Raises ValueError where it cannot follow what a method's row says of training."""

    def check(self, settings) -> None:
        """Raises ValueError where keys of the section do not go with it."""
        if settings.weights == "none":
            raise ValueError(f"train: {self.name} needs a pretrained network: write `weights: pretrained`")
        if settings.layer_decay is not None:
            raise ValueError("layer_decay is for `train: all`: leave it out where one layer alone is trained")


class All(Adaptation):
    name = "all"
    meaning = "all weights"
    freezes = False

    def check(self, settings):
        if settings.layer_decay is not None and not settings.library.has_weights:
            raise ValueError(f"layer_decay needs a network of timm, not {settings.model}: leave it out")


class Head(Adaptation):
    name = "head"
    meaning = "the last layer, on random crops; all others stay as they were pretrained"


class Probe(Adaptation):
    name = "probe"
    meaning = (
        "the last layer as a logistic regression on features of whole images, which are computed once, with a strength "
        "of regularisation that validation images choose; learning rate, budget and crops are not used"
    )
    is_probe = True
    unit = PROBE_UNIT
    account = (
        "of every method a logistic regression on features of the same pretrained network, whose strength of "
        "regularisation validation images choose; an epoch stands for the one look at each image, steps are those of "
        "its optimiser."
    )

    def check(self, settings):
        super().check(settings)
        if settings.processes > 1:
            raise ValueError("a probe is fitted by one process: leave out `processes`, or write `train: head`")

    def check_recipe(self, recipe):
        if recipe.augment is not None or (recipe.mix and recipe.mix.probability is not None):
            key = "augment" if recipe.augment is not None else "mix: {probability: ...}"
            raise ValueError(f"a probe sees each image once, as it is, and so knows no `{key}`: write `train: head`")


ADAPTATIONS: dict[str, Adaptation] = {adaptation.name: adaptation for adaptation in (All(), Head(), Probe())}
