"""What it takes to sample from the tiny world's diffusion model."""

from augbench.diffusion import sampling

KEY = (1, "simple_prompt")
SETTINGS = {"image_size": 32, "steps": 4, "guidance": 3.0, "noise_share": 0.5, "max_replacements": 50, "threads": 1}
CLASSES = [{"class": "three", "lemmas": "three, trey"}, {"class": "five", "lemmas": "five, cinque"}]
METHOD = {"conditioning": "simple_prompt", "templates": "random", "trained": [], "clusters": 1, "start": "noise"}


def work(world, rows, candidate="base", backbone=None, batch_size=8, part=0, parts=1, latents=None, who="", **changes):
    return sampling.Work(
        lambda: sampling.Sampler(backbone or world.backbone, start_latents=latents, **(SETTINGS | changes)),
        sampling.batches(rows, batch_size, part, parts),
        KEY,
        candidate,
        who,
    )
