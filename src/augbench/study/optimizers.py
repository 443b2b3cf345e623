"""By what a classifier's weights are optimised: a class for each value of ``classifier: {optimizer: ...}``, and the
table of them.

Nothing else in the program compares an optimiser with a string: it asks the object. A new one is a class here and a row
of ``OPTIMIZERS``. torch is imported by those methods alone that need it.
"""

from typing import Any

MOMENTUM = 0.9


class Optimizer:
    """What the program asks of an optimiser. ``settings`` is the section ``classifier`` of the configuration."""

    name: str
    meaning: str  # for the reference of the configuration
    decays_all = False  # weight decay holds for biases and scales of normalisations too

    def check(self, settings) -> None:
        """Raises ValueError where keys of the section do not go with the optimiser."""

    def optimize(self, groups: list[dict], settings) -> Any:
        """A ``torch.optim.Optimizer`` of groups of parameters, each with its ``weight_decay``."""
        raise NotImplementedError

    def of(self, module, settings) -> Any:
        """:meth:`optimize` of a network's parameters that are to be trained.

        With ``layer_decay`` each group has a ``lr_scale``, by which its learning rate is multiplied: timm's, less
        the further a layer is from the last one.
        """
        if settings.layer_decay is not None:
            return self.optimize(_by_layer(module, settings), settings)
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        if self.decays_all:
            return self.optimize([{"params": weights, "weight_decay": settings.weight_decay}], settings)
        plain = _undecayed(module)
        named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
        groups = [
            {"params": [weight for name, weight in named if _decays(name, weight, plain)]}
            | {"weight_decay": settings.weight_decay},
            {"params": [weight for name, weight in named if not _decays(name, weight, plain)], "weight_decay": 0.0},
        ]
        return self.optimize([group for group in groups if group["params"]], settings)


class Sgd(Optimizer):
    name = "sgd"
    meaning = f"stochastic gradient descent with momentum {MOMENTUM} (the paper's)"
    decays_all = True

    def optimize(self, groups, settings):
        import torch

        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=MOMENTUM)


class AdamW(Optimizer):
    name = "adamw"
    meaning = "AdamW; weight decay holds for matrices alone"

    def check(self, settings):
        if "learning_rate" not in settings.model_fields_set:
            raise ValueError(
                "optimizer: adamw needs a learning rate of its own, e.g. `learning_rate: 1e-5` for all weights of a "
                "pretrained network, or 1e-3 for its last layer"
            )

    def optimize(self, groups, settings):
        import torch

        return torch.optim.AdamW(groups, lr=settings.learning_rate)


OPTIMIZERS: dict[str, Optimizer] = {optimizer.name: optimizer for optimizer in (Sgd(), AdamW())}


def _undecayed(module) -> set[str]:
    """The parameters that a network of timm names as those without weight decay."""
    return set(module.no_weight_decay()) if hasattr(module, "no_weight_decay") else set()


def _decays(name: str, weight, plain: set[str]) -> bool:
    return weight.ndim > 1 and name not in plain


def _by_layer(module, settings) -> list[dict]:
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(
        module, settings.weight_decay, no_weight_decay_list=_undecayed(module), layer_decay=settings.layer_decay
    )
    return [{key: group[key] for key in ("params", "weight_decay", "lr_scale")} for group in groups if group["params"]]
