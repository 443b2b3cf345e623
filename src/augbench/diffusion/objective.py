"""What fine-tuning works on: Stable Diffusion's objective, and a model of which only the method's parts are trained."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from augbench.core.seeds import generator
from augbench.diffusion import conditioning
from augbench.study import prompts


def noise_schedule(scheduler):
    """The training noise of a pipeline's scheduler, whatever sampler that is."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(scheduler.config)


def target_of(schedule, latents, noise, timesteps):
    """What the denoiser should predict, as the schedule says: noise, velocity or the latents themselves.

    Raises ValueError for another prediction type.
    """
    kind = schedule.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return schedule.get_velocity(latents, noise, timesteps)
    if kind == "sample":
        return latents
    raise ValueError(f"unknown prediction type {kind!r}")


def sample_posterior(parameters, noise, scaling_factor: float):
    """Scaled latents (n, channels, height, width) from posteriors (n, 2 x channels, ...) and standard noise."""
    mean, log_variance = parameters.float().chunk(2, dim=1)
    return (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise) * scaling_factor


def losses(denoiser, schedule, latents, noise, timesteps, guides):
    """Stable Diffusion's objective (Rombach et al. 2022): mean squared error of each image, float32 (n,)."""
    noisy = schedule.add_noise(latents, noise, timesteps)
    predicted = denoiser(noisy, timesteps, guides)
    error = predicted.float() - target_of(schedule, latents, noise, timesteps).float()
    return error.square().flatten(1).mean(1)


# --- the model ------------------------------------------------------------------------------------------


def adaptable(pipeline, classes: Sequence[Mapping], method: Mapping, gradient_checkpointing: bool = False):
    """A module around a pipeline's denoiser and text encoder in which only the method's parts are trained.

    ``forward(noisy, timesteps, guides)`` predicts; ``guides`` are rows of the learned conditionings (int64
    (n,)), token numbers (int64 (n, tokens)) or frozen encodings (n, tokens, width). ``candidate()`` gives what
    was trained, see :mod:`augbench.diffusion.conditioning`, to be written at once: on the CPU it is the model's own
    memory;
    ``groups`` maps each trained part to its parameters.
    """
    import torch

    trained = method["trained"]
    encodings = conditioning.TextEncodings(pipeline.tokenizer, pipeline.text_encoder)

    class Adaptable(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet, self.text_encoder = pipeline.unet, pipeline.text_encoder
            self.requires_grad_(False)
            self.groups = {}
            if "conditioning" in trained:
                template = prompts.templates(method["conditioning"])[0]
                texts = [prompts.fill(template, about) for about in classes]
                start = conditioning.initial_conditioning(encodings, texts, method["clusters"])
                self.conditioning = torch.nn.Parameter(start)
                self.groups["conditioning"] = [self.conditioning]
            if "pseudo_word" in trained:
                lemmas = [about["lemmas"] for about in classes]
                start = conditioning.initial_pseudo_words(pipeline.tokenizer, self.text_encoder, lemmas)
                self.pseudo_word = torch.nn.Parameter(start)
                conditioning.with_pseudo_words(self.text_encoder, self.pseudo_word)
                self.groups["pseudo_word"] = [self.pseudo_word]
            if "unet" in trained:
                self.unet.requires_grad_(True)  # in full precision; autocast computes in half
                self.groups["unet"] = list(self.unet.parameters())
            if gradient_checkpointing:
                self.unet.enable_gradient_checkpointing()

        def forward(self, noisy, timesteps, guides):
            if "conditioning" in trained:
                guides = self.conditioning[guides]
            elif "pseudo_word" in trained:
                guides = self.text_encoder(guides)[0]
            dtype = self.unet.dtype
            return self.unet(noisy.to(dtype), timesteps, guides.to(dtype), return_dict=False)[0]

        def candidate(self) -> dict:
            found = {}
            if "conditioning" in trained:
                found["conditioning"] = self.conditioning
            if "pseudo_word" in trained:
                found["pseudo_word"] = self.pseudo_word
            if "unet" in trained:
                found |= {f"unet.{name}": value for name, value in self.unet.state_dict().items()}
            return {name: value.detach().cpu() for name, value in found.items()}

        def restore(self, candidate: Mapping) -> None:
            with torch.no_grad():
                for name, value in candidate.items():
                    if name in ("conditioning", "pseudo_word"):
                        getattr(self, name).copy_(value)
            if weights := conditioning.unet_weights(candidate):
                self.unet.load_state_dict(weights)

    return Adaptable(), encodings


def guides_of(
    table: pd.DataFrame,
    classes: Sequence[Mapping],
    method: Mapping,
    clusters: Sequence[int] | None,
    tokenizer,
    encodings,
) -> Callable:
    """A function (positions in ``table``, key of the draw) -> guides of these images, see :func:`adaptable`."""
    import torch

    number = {about["class"]: i for i, about in enumerate(classes)}
    numbers = [number[key] for key in table["class"]]
    if "conditioning" in method["trained"]:
        vectors = torch.tensor(numbers) * method["clusters"]
        vectors = vectors + torch.tensor(list(clusters)) if clusters is not None else vectors
        return lambda positions, *key: vectors[positions]
    templates = prompts.templates(method["conditioning"])

    def texts(positions, *key):
        drawn = generator(*key, "templates").integers(len(templates), size=len(positions))
        return [
            prompts.fill(templates[template], classes[numbers[position]])
            for template, position in zip(drawn, positions, strict=True)
        ]

    if "pseudo_word" not in method["trained"]:
        return lambda positions, *key: encodings(texts(positions, *key))

    def tokens(positions, *key):
        words = [(prompts.pseudo_word(table["class"].iloc[int(i)]), numbers[i]) for i in positions]
        return conditioning.tokenize(tokenizer, texts(positions, *key), words)

    return tokens
