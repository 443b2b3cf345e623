"""Training objectives on latents: Stable Diffusion's, and flow matching."""

from typing import Any

from augbench.models import families


def noise_schedule(scheduler) -> Any:
    """The training noise of a pipeline's scheduler, whatever sampler that is."""
    from diffusers import DDPMScheduler

    if families.is_flow(scheduler.config):
        return FlowMatching(scheduler)
    return DDPMScheduler.from_config(scheduler.config)


class FlowMatching:
    """Straight ways from images to noise (Esser et al. 2024): at a timestep t of 1000 latents are mixed with t / 1000
    of noise. The scheduler's own shift towards noise holds."""

    def __init__(self, scheduler):
        from diffusers import FlowMatchEulerDiscreteScheduler

        schedule: Any = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
        self.config, self.timesteps = schedule.config, schedule.timesteps

    def add_noise(self, latents, noise, timesteps):
        share = (timesteps / self.config.num_train_timesteps).view(-1, *[1] * (latents.dim() - 1))
        return (1 - share) * latents + share * noise

    def draw(self, count: int, random):
        """Timesteps of which most are in the middle: the sigmoid of a normal number says at which place."""
        import torch

        places = torch.randn(count, generator=random).sigmoid() * len(self.timesteps)
        return self.timesteps[places.long().clamp(max=len(self.timesteps) - 1)]

    def even(self, count: int):
        """Timesteps evenly over the schedule."""
        import torch

        return self.timesteps[torch.arange(count) * len(self.timesteps) // count]


def draw_timesteps(schedule, count: int, random):
    """A timestep for each of so many images, as the objective draws them."""
    import torch

    if isinstance(schedule, FlowMatching):
        return schedule.draw(count, random)
    return torch.randint(0, schedule.config.num_train_timesteps, (count,), generator=random)


def even_timesteps(schedule, count: int):
    """Timesteps of so many images evenly over the schedule."""
    import torch

    if isinstance(schedule, FlowMatching):
        return schedule.even(count)
    return torch.arange(count) * schedule.config.num_train_timesteps // count


def target_of(schedule, latents, noise, timesteps):
    """What the denoiser should predict, as the schedule says: noise, velocity, the latents themselves, or the way from
    them to the noise.

    Raises ValueError for another prediction type.
    """
    if isinstance(schedule, FlowMatching):
        return noise - latents
    kind = schedule.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return schedule.get_velocity(latents, noise, timesteps)
    if kind == "sample":
        return latents
    raise ValueError(f"unknown prediction type {kind!r}")


def sample_posterior(parameters, noise, scaling_factor: float, shift_factor: float = 0.0):
    """Latents (n, channels, height, width) from posteriors (n, 2 x channels, ...) and standard noise, shifted and
    scaled as the denoiser knows them."""
    mean, log_variance = parameters.float().chunk(2, dim=1)
    latents = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise
    return (latents - shift_factor) * scaling_factor if shift_factor else latents * scaling_factor


def losses(denoiser, schedule, latents, noise, timesteps, guides):
    """The objective (Rombach et al. 2022; Esser et al. 2024): mean squared error of each image, float32 (n,)."""
    noisy = schedule.add_noise(latents, noise, timesteps)
    predicted = denoiser(noisy, timesteps, guides)
    error = predicted.float() - target_of(schedule, latents, noise, timesteps).float()
    return error.square().flatten(1).mean(1)
