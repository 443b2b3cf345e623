"""Stable Diffusion's training objective, on latents."""

from typing import Any


def noise_schedule(scheduler) -> Any:
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
