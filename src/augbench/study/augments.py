"""What is done to training images beyond crops and flips: a class for each value of a method's ``augment``, and the
table of them.

Nothing else in the program compares an augment with a string: it asks the object. A new one is a class here and a row
of ``AUGMENTS``. Each is a transform of ``torchvision.transforms.v2``, imported when it is made, for the configuration
is read without it.
"""


class Augment:
    """What the program asks of an augment; its settings are those of torchvision's reference training script."""

    name: str
    meaning: str  # for the reference of the configuration
    mixes_batches = False  # it takes batches and their labels; others take one cropped image at a time

    def transform(self, classes: int):
        """The transform: of an RGB picture, or of (normalised images (b, 3, h, w), labels), where labels are positions
        among the ``classes``, int64 (b,), or their weights, float (b, classes); it returns the latter."""
        raise NotImplementedError


class RandAugment(Augment):
    name = "randaugment"
    meaning = "two random operations at magnitude 9 of 30 on each image (Cubuk et al. 2020)"

    def transform(self, classes):
        from torchvision.transforms import v2

        return v2.RandAugment(2, 9, interpolation=v2.InterpolationMode.BILINEAR)


class TrivialAugment(Augment):
    name = "trivialaugment"
    meaning = "one random operation of random strength on each image (Müller and Hutter 2021, wide)"

    def transform(self, classes):
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)


class MixUp(Augment):
    name = "mixup"
    meaning = "weighted means of two images of a batch and of their labels (Zhang et al. 2018, alpha 0.2)"
    mixes_batches = True

    def transform(self, classes):
        from torchvision.transforms import v2

        return v2.MixUp(alpha=0.2, num_classes=classes)


class CutMix(Augment):
    name = "cutmix"
    meaning = "a rectangle of each image from another one of its batch, labels by area (Yun et al. 2019, alpha 1)"
    mixes_batches = True

    def transform(self, classes):
        from torchvision.transforms import v2

        return v2.CutMix(alpha=1.0, num_classes=classes)


AUGMENTS: dict[str, Augment] = {
    augment.name: augment for augment in (RandAugment(), TrivialAugment(), MixUp(), CutMix())
}
