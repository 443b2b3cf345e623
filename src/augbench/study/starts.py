"""Where an added image comes from: a class for each value of a method's ``start``, and the table of them.

Nothing else in the program compares a start with a string: it asks the object. A new start is a class here and a row
of ``STARTS``.
"""

from collections.abc import Sequence


class Start:
    """What the program asks of a start; this one's answers hold unless a class below says otherwise."""

    name: str
    meaning: str  # for the reference of the configuration
    adds_images = True
    is_real = False  # what classifiers are trained on is real images of the target alone
    is_generated = False  # by the diffusion model
    is_retrieved = False  # found in the pool
    begins_from_images = False  # the diffusion model denoises noised training images rather than noise
    needs_conditioning = False
    can_be_trained = False  # parts of the diffusion model can be fine-tuned for it
    sections: tuple[str, ...] = ()  # of the study's configuration that it needs
    split: str | None = None  # of the target, whose images it adds: it is not compared with itself
    order = "random"  # how images are chosen for a set: random, listed (the first ones), or all of them
    reference_line: str | None = None  # how bar charts draw its accuracy across all methods
    paper_stage: str | None = None  # the stage by which the paper accounts for its images (section 3.1)

    def ratios(self, wanted: Sequence[float]) -> list[float]:
        """The augmentation ratios at which a method is measured, of those that the study asks for, the main one
        first."""
        return list(wanted)

    def tables(self, files, method: str) -> list[str]:
        """The image tables that a method adds from at the main ratio, by the study's files (``StudyFiles``)."""
        return []

    def enough(self, study) -> float | None:
        """The ratio up to which the images of the main one suffice; None where no further ones can be had."""
        return None

    def further(self, files, method: str, extension: str) -> list[str]:
        """The files of the images that ratios above :meth:`enough` take besides."""
        return []


class TargetOnly(Start):
    name = "none"
    meaning = "nowhere: the target data alone"
    adds_images = False
    is_real = True
    reference_line = "dashed"

    def ratios(self, wanted):
        return [0.0]


class MoreReal(Start):
    name = "more_real"
    meaning = "further real images of the target"
    is_real = True
    split = "more_real"
    order = "all"
    reference_line = "dotted"

    def ratios(self, wanted):
        return list(wanted[:1])  # it adds all there are, whatever the ratio

    def tables(self, files, method):
        return [files.split(self.split)]


class Generated(Start):
    """Images of the diffusion model."""

    is_generated = True
    sections = ("backbone",)

    def tables(self, files, method):
        return files.generated(method, "parquet")

    def enough(self, study):
        return study.main_times

    def further(self, files, method, extension):
        return files.shards(method, "further", extension)


class Noise(Generated):
    name = "noise"
    meaning = "the diffusion model denoises noise"
    needs_conditioning = True
    can_be_trained = True
    paper_stage = "generate"


class Image(Generated):
    name = "image"
    meaning = "the diffusion model denoises a noised training image (Boomerang)"
    begins_from_images = True


class Pool(Start):
    name = "pool"
    meaning = "nearest neighbours of the prompt in the pool"
    is_retrieved = True
    needs_conditioning = True
    sections = ("backbone", "clip", "pool")
    order = "listed"
    paper_stage = "retrieve"

    def tables(self, files, method):
        return [files.retrieved(method, "parquet")]

    def enough(self, study):
        return study.main_ratio

    def further(self, files, method, extension):
        return [files.retrieved(method, extension, further=True)]


STARTS: dict[str, Start] = {start.name: start for start in (TargetOnly(), MoreReal(), Noise(), Image(), Pool())}
