"""Where an added image comes from: a class for each value of a method's ``start``, and the table of them.

Nothing else in the program compares a start with a string: it asks the object. A new start is a class here and a row
of ``STARTS``. Schedulers and latents are passed in; torch is imported by those methods alone that need it.
"""

import math
from collections.abc import Mapping, Sequence

from augbench.core.seeds import generator


class Start:
    """What the program asks of a start; this one's answers hold unless a class below says otherwise."""

    name: str
    meaning: str  # for the reference of the configuration
    adds_images = True
    is_real = False  # what classifiers are trained on is real images of the target alone
    is_generated = False  # by the diffusion model
    is_retrieved = False  # found in the pool
    is_external = False  # made elsewhere: the study says where they lie
    is_union = False  # of other methods' images, in shares that its row says
    has_shares = True  # a union can take a share of the images
    is_checked = False  # by the safety checker, before they are added
    begins_from_noise = False  # and nothing else, as every diffusion model does of itself
    begins_from_images = False  # the diffusion model denoises noised training images rather than noise
    needs_conditioning = False
    can_be_trained = False  # parts of the diffusion model can be fine-tuned for it
    sections: tuple[str, ...] = ()  # of the study's configuration that it needs
    split: str | None = None  # of the target, whose images it adds: it is not compared with itself
    order = "random"  # how images are chosen for a set: random, listed (the first ones), or all of them
    reference_line: str | None = None  # how bar charts draw its accuracy across all methods
    more = "make more images"  # what helps where there are too few
    paper_stage: str | None = None  # the stage by which the paper accounts for its images (section 3.1)

    def ratios(self, wanted: Sequence[float]) -> list[float]:
        """The augmentation ratios at which a method is measured, of those that the study asks for, the main one
        first."""
        return list(wanted)

    def tables(self, files, method: str) -> list[str]:
        """The image tables that a method adds from at the main ratio, by the study's files (``StudyFiles``)."""
        return []

    def enough(self, study, method) -> float | None:
        """The ratio up to which a method's images of the main one suffice; None where no further ones can be had."""
        return None

    def steps(self, settings) -> int:
        """Denoising steps of an image; ``settings`` is the section ``generate`` of the configuration."""
        return 0

    def further(self, files, method: str, extension: str) -> list[str]:
        """The files of the images that ratios above :meth:`enough` take besides."""
        return []


class TargetOnly(Start):
    name = "none"
    meaning = "nowhere: the target data alone"
    adds_images = False
    has_shares = False
    is_real = True
    reference_line = "dashed"

    def ratios(self, wanted):
        return [0.0]


class MoreReal(Start):
    name = "more_real"
    meaning = "further real images of the target"
    is_real = True
    has_shares = False
    split = "more_real"
    order = "all"
    reference_line = "dotted"

    def ratios(self, wanted):
        return list(wanted[:1])  # it adds all there are, whatever the ratio

    def tables(self, files, method):
        return [files.split(self.split)]


class Generated(Start):
    """Images of the diffusion model; a draw begins from noise unless a class below says otherwise.

    ``training`` are the training images as :class:`augbench.diffusion.latents.StartImages`, or None where
    ``begins_from_images`` is false; ``settings`` is the section ``generate`` as it holds for the method.
    """

    is_generated = True
    is_checked = True
    more = "a higher `generate: {times: ...}`"

    def tables(self, files, method):
        return files.generated(method, "parquet")

    def enough(self, study, method):
        return study.main_times(method)

    def further(self, files, method, extension):
        return files.shards(method, "further", extension)

    def steps(self, settings):
        return settings.steps

    def choose(self, row: Mapping, key: tuple, attempt: int, training) -> dict:
        """What to note in a planned row before each draw; ``attempt`` counts the draws refused before."""
        return {}

    def begin(self, rows: Sequence[Mapping], noise, scheduler, settings, training):
        """The latents that denoising begins from, and the timesteps it then takes.

        ``noise`` (n, channels, height, width) is standard normal, the scheduler's timesteps are set.
        """
        return noise * scheduler.init_noise_sigma, scheduler.timesteps

    def refused(self, row: Mapping, draws: int, training) -> tuple[str, str] | None:
        """Why the safety checker may refuse all draws for a row, and what helps; None: what guides the images says."""
        return None


class Noise(Generated):
    name = "noise"
    meaning = "the diffusion model denoises noise"
    begins_from_noise = True
    needs_conditioning = True
    can_be_trained = True
    paper_stage = "generate"


class Image(Generated):
    name = "image"
    meaning = "the diffusion model denoises a noised training image (Boomerang, Real Guidance, DA-Fusion)"
    begins_from_images = True
    can_be_trained = True

    def steps(self, settings):
        return max(1, round(settings.noise_share * settings.steps))

    def choose(self, row, key, attempt, training):
        position = start_image(training.positions.get(row["class"], ()), key, row, attempt)
        return {"start": position, "start_image": training.image_ids[position]}

    def begin(self, rows, noise, scheduler, settings, training):
        if settings.noise_share == 1:  # of the image nothing is left
            return super().begin(rows, noise, scheduler, settings, training)
        timesteps = last_steps(scheduler, self.steps(settings))
        images = training.latents[[row["start"] for row in rows]]
        return scheduler.add_noise(images, noise, timesteps[:1].cpu().repeat(len(rows))), timesteps

    def refused(self, row, draws, training):
        count = len(training.positions[row["class"]])
        return f"from {min(draws, count)} of the {count} training images", "leave the class out of the target"


class Pool(Start):
    name = "pool"
    meaning = "nearest neighbours of the prompt in the pool"
    is_retrieved = True
    is_checked = True
    needs_conditioning = True
    sections = ("clip", "pool")
    order = "listed"
    more = "a higher `retrieval: {images_per_class: ...}`"
    paper_stage = "retrieve"

    def tables(self, files, method):
        return [files.retrieved(method, "parquet")]

    def enough(self, study, method):
        return study.main_ratio

    def further(self, files, method, extension):
        return [files.retrieved(method, extension, further=True)]


class Folder(Start):
    name = "folder"
    meaning = "images made elsewhere, by any tool: the study says where they lie, in `added`"
    is_external = True

    def tables(self, files, method):
        return [files.added_images(method)]

    def enough(self, study, method):
        return math.inf  # all there are, at any ratio


class Union(Start):
    name = "methods"
    meaning = "other methods' images, in the shares that `of` says"
    is_union = True

    def enough(self, study, method):
        return math.inf  # its methods see to it


STARTS: dict[str, Start] = {
    start.name: start for start in (TargetOnly(), MoreReal(), Noise(), Image(), Pool(), Folder(), Union())
}


def start_image(positions: Sequence[int], key: tuple, row: Mapping, attempt: int) -> int:
    """Which of a class's training images a draw starts from, one of their ``positions`` among the latents.

    The images of a class start from its training images in turn. A draw that was refused is repeated from another one,
    the others in an order drawn for the image: of some start images the safety checker refuses nearly every draw.

    Raises ValueError when the class has no training image.
    """
    if not positions:
        raise ValueError(f"the class {row['class']} has no training image to start from")
    own = row["index"] % len(positions)
    if attempt == 0:
        return int(positions[own])
    others = [*positions[:own], *positions[own + 1 :]] or positions
    order = generator(*key, row["class"], row["index"], "start").permutation(len(others))
    return int(others[order[(attempt - 1) % len(others)]])


def last_steps(scheduler, count: int):
    """The timesteps of the last ``count`` denoising steps, for a scheduler whose timesteps are set; it begins there.

    Stable Diffusion's own PNDM visits its second timestep twice, wherever it begins.
    """
    import torch

    if type(scheduler).__name__ == "PNDMScheduler":
        unique = torch.unique_consecutive(scheduler.timesteps)[-count:]
        return torch.cat([unique[:2], unique[1:]]) if count > 1 else unique
    first = len(scheduler.timesteps) - count * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]
