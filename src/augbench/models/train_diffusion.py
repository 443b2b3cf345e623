"""Trains a small Stable Diffusion on a captioned pool, for studies for which no pretrained one can be had.

The result is a diffusers ``StableDiffusionPipeline`` folder: VAE, U-Net, the text encoder and tokenizer
of the given CLIP, scheduler, and a safety checker fitted to the words that mark unsafe captions.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from augbench.core import determinism, finite
from augbench.core.files import whole
from augbench.core.seeds import derive
from augbench.models.captioned_pool import CaptionedPool, best_device, normalised
from augbench.models.clip_tokenizer import write_tokenizer
from augbench.study.sections.models import BackboneTraining

Progress = Callable[[int, int, str], None]


class _Schedule(NamedTuple):
    steps: int
    batch_size: int
    learning_rate: float  # peak


SAFETY = _Schedule(150, 64, 1e-3)  # of the safety checker: enough for a concept that can be seen at all


def train_vae(
    shards: Sequence[str | Path],
    folder: str | Path,
    settings: BackboneTraining,
    *,
    seed: int,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Train the autoencoder (Rombach et al. 2022, without the adversarial part) and write its folder.

    Squared error plus 1e-6 x KL divergence, AdamW, cosine decay. The latents' scale is stored as ``scaling_factor``, so
    that they enter the diffusion model with unit variance.
    """
    torch.set_num_threads(settings.threads)
    determinism.require(strict=True)
    torch.manual_seed(derive(seed, "vae", "weights"))
    pool = CaptionedPool(shards, settings.image_size)
    channels = settings.vae_channels
    vae: Any = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        latent_channels=settings.latent_channels,
        norm_num_groups=math.gcd(*channels, 8),
        sample_size=settings.image_size,
        layers_per_block=1,
    ).to(best_device())
    order = np.random.default_rng(derive(seed, "vae", "order"))
    noise = torch.Generator().manual_seed(derive(seed, "vae", "noise"))

    def loss_of(batch):
        posterior = vae.encode(batch).latent_dist
        return (vae.decode(posterior.sample(noise)).sample - batch).square().mean() + 1e-6 * posterior.kl().mean()

    schedule = _Schedule(settings.vae_steps, settings.vae_batch_size, settings.vae_learning_rate)
    _optimise(vae, loss_of, pool.pixels, order, schedule, progress)
    with torch.no_grad():
        some = torch.from_numpy(order.choice(len(pool.pixels), min(512, len(pool.pixels)), replace=False))
        deviation = vae.encode(normalised(pool.pixels[some].to(vae.device))).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))
    with whole(folder) as temporary:
        vae.save_pretrained(temporary)


# Stable Diffusion's own schedule leaves so much signal at its last step that small pictures with
# plain backgrounds would take their colours from the noise instead of the prompt: Lin et al. (2024).
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}


def train_unet(
    shards: Sequence[str | Path],
    vae_folder: str | Path,
    clip_folder: str | Path,
    safety_folder: str | Path,
    folder: str | Path,
    settings: BackboneTraining,
    *,
    seed: int,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Train the denoiser on the pool's captions and write the whole pipeline folder.

    ``safety_folder`` is what :func:`train_safety_checker` wrote.

    Velocity prediction with a schedule that ends in pure noise; one caption in ten is replaced by the empty one,
    which makes classifier-free guidance possible. VAE posteriors and text encodings are computed once.
    """
    torch.set_num_threads(settings.threads)
    determinism.require(strict=True)
    pool = CaptionedPool(shards, settings.image_size)
    device = best_device()
    vae: Any = AutoencoderKL.from_pretrained(vae_folder).eval().to(device)
    text_encoder = CLIPTextModel.from_pretrained(clip_folder).eval().to(device)
    with whole(folder) as temporary:
        write_tokenizer(temporary / "tokenizer", settings.text_tokens)
        tokenizer = CLIPTokenizer.from_pretrained(temporary / "tokenizer")
        captions, captions_of = np.unique([*pool.captions, ""], return_inverse=True)
        encodings = _encodings(captions, tokenizer, text_encoder)
        with torch.no_grad():
            posteriors = torch.cat(
                [
                    vae.encode(normalised(part.to(device))).latent_dist.parameters.cpu()
                    for part in pool.pixels.split(256)
                ]
            )
        torch.manual_seed(derive(seed, "unet", "weights"))
        unet = _untrained_unet(settings, vae, posteriors.shape[-1], text_encoder.config.hidden_size).to(device)
        noise = torch.Generator().manual_seed(derive(seed, "unet", "noise"))
        loss_of = _denoising_loss(unet, posteriors, encodings, captions_of, vae.config.scaling_factor, noise)
        order = np.random.default_rng(derive(seed, "unet", "order"))
        schedule = _Schedule(settings.unet_steps, settings.batch_size, settings.learning_rate)
        _optimise(unet, loss_of, torch.arange(len(posteriors)), order, schedule, progress)
        pipeline = StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet.eval(),
            scheduler=DDIMScheduler(**NOISE, clip_sample=False),
            safety_checker=StableDiffusionSafetyChecker.from_pretrained(Path(safety_folder, "safety_checker")),
            feature_extractor=CLIPImageProcessor.from_pretrained(Path(safety_folder, "feature_extractor")),
        )
        pipeline.save_pretrained(temporary)


def _encodings(captions: Sequence[str], tokenizer, text_encoder):
    """What the denoiser sees of captions, float32 (captions, tokens, width)."""
    tokens = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return torch.cat([text_encoder(part.to(text_encoder.device))[0].cpu() for part in tokens.split(256)])


def _untrained_unet(settings: BackboneTraining, vae, side: int, width: int) -> UNet2DConditionModel:
    """For latents of ``side`` and text encodings of ``width``."""
    channels = settings.unet_channels
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        down_block_types=["CrossAttnDownBlock2D"] * (len(channels) - 1) + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (len(channels) - 1),
        block_out_channels=channels,
        layers_per_block=1,
        attention_head_dim=2,  # number of heads, as in Stable Diffusion's configuration
        norm_num_groups=math.gcd(*channels, 32),
        cross_attention_dim=width,
    )


def _denoising_loss(unet, posteriors, encodings, captions_of, scale: float, noise) -> Callable:
    """The loss of a batch of positions; what is drawn is drawn on the CPU, the same for every device.

    ``captions_of`` holds the place in ``encodings`` of each image's caption and, last, that of the empty one.
    """
    scheduler = DDPMScheduler(**NOISE)
    which, empty = torch.from_numpy(captions_of[:-1]), int(captions_of[-1])

    def loss_of(batch):
        mean, log_variance = posteriors[batch].chunk(2, dim=1)
        latents = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=noise)
        latents = latents * scale
        fresh = torch.randn(latents.shape, generator=noise)
        # One timestep from each part of the schedule, and more of the noisy ones, at which the caption decides.
        shares = (torch.arange(len(batch)) + torch.rand(len(batch), generator=noise)) / len(batch)
        steps_back = (1000 * shares**0.4).long().clamp(max=999)
        dropped = torch.rand(len(batch), generator=noise) < 0.1
        condition = encodings[torch.where(dropped, empty, which[batch])]
        latents, fresh, steps_back, condition = (
            each.to(unet.device) for each in (latents, fresh, steps_back, condition)
        )
        noisy = scheduler.add_noise(latents, fresh, steps_back)
        target = scheduler.get_velocity(latents, fresh, steps_back)
        return (unet(noisy, steps_back, condition).sample - target).square().mean()

    return loss_of


def train_safety_checker(
    shards: Sequence[str | Path],
    clip_folder: str | Path,
    folder: str | Path,
    *,
    seed: int,
    unsafe_words: list[str],
    threads: int,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Write a ``StableDiffusionSafetyChecker`` that fires on images like those whose caption has an unsafe word.

    The checker's image encoder starts as CLIP's and learns to bring images with marked captions close to
    one concept vector, the others away from it; each batch holds as many of the ones as of the others.
    Captions are noisy labels, so the threshold stands midway between the medians of both. Without unsafe
    words, or when no caption has one, the checker never fires. The folder holds ``safety_checker`` and
    ``feature_extractor``, as a pipeline folder does.
    """
    torch.set_num_threads(threads)
    determinism.require(strict=True)
    torch.manual_seed(derive(seed, "safety", "weights"))
    clip: Any = CLIPModel.from_pretrained(clip_folder).eval()
    pool = CaptionedPool(shards, clip.config.vision_config.image_size)
    checker = StableDiffusionSafetyChecker(CLIPConfig(**clip.config.to_dict() | {"attn_implementation": "eager"}))
    checker.vision_model.load_state_dict(clip.vision_model.state_dict())
    checker.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    for weights in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        weights.data.fill_(2.0)  # a cosine never reaches it: this slot never fires
    checker.to(best_device())
    marked = np.array([any(word in caption.lower() for word in unsafe_words) for caption in pool.captions])
    if marked.any() and not marked.all():
        concept = F.normalize(torch.randn(clip.config.projection_dim), dim=0).to(best_device())

        def score(pixels):
            hidden = checker.vision_model(normalised(pixels.to(concept.device))).pooler_output
            return F.normalize(checker.visual_projection(hidden)) @ concept

        def loss_of(batch):
            truth = torch.from_numpy(marked[batch]).float().to(concept.device)
            return F.binary_cross_entropy_with_logits(8 * score(pool.pixels[batch]), truth)

        rng = np.random.default_rng(derive(seed, "safety", "order"))
        sides = [np.flatnonzero(marked), np.flatnonzero(~marked)]
        balanced = np.concatenate([rng.choice(side, SAFETY.batch_size // 2 * SAFETY.steps) for side in sides])
        _optimise(checker, loss_of, torch.from_numpy(balanced), rng, SAFETY, progress)
        with torch.no_grad():
            scores = torch.cat([score(part).cpu() for part in pool.pixels.split(256)]).numpy()
        checker.concept_embeds.data[0] = concept
        checker.concept_embeds_weights.data[0] = float(np.median(scores[marked]) + np.median(scores[~marked])) / 2
    with whole(folder) as temporary:
        checker.eval().save_pretrained(temporary / "safety_checker")
        CLIPImageProcessor.from_pretrained(clip_folder).save_pretrained(temporary / "feature_extractor")


def _optimise(model, loss_of: Callable, data, order, training: _Schedule, progress: Progress) -> None:
    """AdamW with 50 warm-up steps, cosine decay and clipping at 1 over random batches of ``data``."""
    steps = training.steps
    trainable = [weights for weights in model.parameters() if weights.requires_grad]
    device = trainable[0].device
    optimizer = torch.optim.AdamW(trainable, lr=training.learning_rate, weight_decay=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1, step / steps)))
    )
    model.train()
    smooth = None
    for step in range(steps):
        batch = data[torch.from_numpy(order.integers(0, len(data), training.batch_size))]
        loss = loss_of(normalised(batch.to(device)) if batch.dtype == torch.uint8 else batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        schedule.step()
        latest = loss.item()
        smooth = latest if smooth is None else 0.98 * smooth + 0.02 * latest
        progress(step + 1, steps, f"loss {smooth:.4f}")
    advice = "use lower learning rates in `backbone: {train: ...}`"
    finite.check_weights(model, f"the trained {type(model).__name__}", advice)
    model.eval()
