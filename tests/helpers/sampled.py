"""What it takes to sample from the tiny world's diffusion model."""

from augbench.diffusion import sampling
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.sampling_plan import batches
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Generate

KEY = (1, "simple_prompt")
SETTINGS = Generate(image_size=32, steps=4, guidance=3.0, noise_share=0.5)
CLASSES = [{"class": "three", "lemmas": "three, trey"}, {"class": "five", "lemmas": "five, cinque"}]
METHOD = Method(title="Simple prompt", family="prompting", conditioning="simple_prompt", start="noise")


def changed(section, **changes):
    """A section of the configuration, or a method, with some keys changed, validated again."""
    return type(section).model_validate(section.model_dump() | changes)


def work(
    world, rows, candidate="base", backbone=None, batch_size=8, part=0, parts=1, method=METHOD, training=(), who="",
    **changes,
):  # fmt: skip
    """Rows to generate; ``training`` is the table and the latents of images to begin from."""
    settings = changed(SETTINGS, **changes)
    return sampling.Work(
        lambda: Sampler(backbone or world.backbone, method, settings, *training, safety=backbone or world.backbone),
        batches(rows, batch_size, part, parts),
        KEY,
        candidate,
        who,
    )
