"""Trains a small Stable Diffusion on a captioned pool, for studies for which no pretrained one can be had.

The result is a diffusers ``StableDiffusionPipeline`` folder: VAE, U-Net, the text encoder and tokenizer
of the given CLIP, scheduler, and a safety checker fitted to the words that mark unsafe captions.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from augbench.core import finite
from augbench.core.files import whole
from augbench.core.seeds import derive
from augbench.models.captioned_pool import CaptionedPool, normalised
from augbench.models.train_clip import write_tokenizer

Progress = Callable[[int, int, str], None]
SAFETY_STEPS = 150  # enough for a concept that can be seen at all


def train_vae(
    shards: Sequence[str | Path],
    folder: str | Path,
    *,
    seed: int,
    image_size: int,
    channels: list[int],
    latent_channels: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    threads: int,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Train the autoencoder (Rombach et al. 2022, without the adversarial part) and write its folder.

    Squared error plus 1e-6 x KL divergence, AdamW, cosine decay. ``channels`` are the widths per
    resolution; each after the first halves it. The latents' scale is stored as ``scaling_factor``, so
    that they enter the diffusion model with unit variance.
    """
    import numpy as np
    import torch
    from diffusers import AutoencoderKL

    torch.set_num_threads(threads)
    torch.manual_seed(derive(seed, "vae", "weights"))
    pool = CaptionedPool(shards, image_size)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        latent_channels=latent_channels,
        norm_num_groups=math.gcd(*channels, 8),
        sample_size=image_size,
        layers_per_block=1,
    )
    order = np.random.default_rng(derive(seed, "vae", "order"))
    noise = torch.Generator().manual_seed(derive(seed, "vae", "noise"))

    def loss_of(batch):
        posterior = vae.encode(batch).latent_dist
        return (vae.decode(posterior.sample(noise)).sample - batch).square().mean() + 1e-6 * posterior.kl().mean()

    _optimise(vae, loss_of, pool.pixels, order, steps, batch_size, learning_rate, progress)
    with torch.no_grad():
        some = torch.from_numpy(order.choice(len(pool.pixels), min(512, len(pool.pixels)), replace=False))
        spread = vae.encode(normalised(pool.pixels[some])).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=round(1 / spread, 5))
    with whole(folder) as temporary:
        vae.save_pretrained(temporary)


def train_unet(
    shards: Sequence[str | Path],
    vae_folder: str | Path,
    clip_folder: str | Path,
    safety_folder: str | Path,
    folder: str | Path,
    *,
    seed: int,
    image_size: int,
    channels: list[int],
    text_tokens: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    threads: int,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Train the denoiser on the pool's captions and write the whole pipeline folder.

    ``safety_folder`` is what :func:`train_safety_checker` wrote.

    Velocity prediction with a schedule that ends in pure noise; one caption in ten is replaced by the empty one,
    which makes classifier-free guidance possible. VAE posteriors and text encodings are computed once.
    ``text_tokens`` is the length that prompts are padded to.
    """
    import numpy as np
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DDPMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer

    torch.set_num_threads(threads)
    pool = CaptionedPool(shards, image_size)
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    text_encoder = CLIPTextModel.from_pretrained(clip_folder).eval()
    with whole(folder) as temporary:
        write_tokenizer(temporary / "tokenizer", text_tokens)
        tokenizer = CLIPTokenizer.from_pretrained(temporary / "tokenizer")
        texts, which = np.unique([*pool.captions, ""], return_inverse=True)
        which, empty = torch.from_numpy(which[:-1]), int(which[-1])
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            encodings = torch.cat([text_encoder(part)[0] for part in tokens.split(256)])
            posteriors = torch.cat(
                [vae.encode(normalised(part)).latent_dist.parameters for part in pool.pixels.split(256)]
            )
        torch.manual_seed(derive(seed, "unet", "weights"))
        unet = UNet2DConditionModel(
            sample_size=posteriors.shape[-1],
            in_channels=vae.config.latent_channels,
            out_channels=vae.config.latent_channels,
            down_block_types=["CrossAttnDownBlock2D"] * (len(channels) - 1) + ["DownBlock2D"],
            up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (len(channels) - 1),
            block_out_channels=channels,
            layers_per_block=1,
            attention_head_dim=2,  # number of heads, as in Stable Diffusion's configuration
            norm_num_groups=math.gcd(*channels, 32),
            cross_attention_dim=text_encoder.config.hidden_size,
        )
        # Stable Diffusion's own schedule leaves so much signal at its last step that small pictures with
        # plain backgrounds would take their colours from the noise instead of the prompt: Lin et al. (2024).
        schedule = {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "steps_offset": 1,
        }
        training_noise = DDPMScheduler(**schedule)
        order = np.random.default_rng(derive(seed, "unet", "order"))
        noise = torch.Generator().manual_seed(derive(seed, "unet", "noise"))

        def loss_of(batch):
            mean, log_variance = posteriors[batch].chunk(2, dim=1)
            latents = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=noise)
            latents = latents * vae.config.scaling_factor
            fresh = torch.randn(latents.shape, generator=noise)
            # One timestep from each part of the schedule, and more of the noisy ones, at which the caption decides.
            shares = (torch.arange(len(batch)) + torch.rand(len(batch), generator=noise)) / len(batch)
            steps_back = (1000 * shares**0.4).long().clamp(max=999)
            dropped = torch.rand(len(batch), generator=noise) < 0.1
            condition = encodings[torch.where(dropped, empty, which[batch])]
            noisy = training_noise.add_noise(latents, fresh, steps_back)
            target = training_noise.get_velocity(latents, fresh, steps_back)
            return (unet(noisy, steps_back, condition).sample - target).square().mean()

        everything = torch.arange(len(posteriors))
        _optimise(unet, loss_of, everything, order, steps, batch_size, learning_rate, progress)
        pipeline = StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet.eval(),
            scheduler=DDIMScheduler(**schedule, clip_sample=False),
            safety_checker=StableDiffusionSafetyChecker.from_pretrained(Path(safety_folder, "safety_checker")),
            feature_extractor=CLIPImageProcessor.from_pretrained(Path(safety_folder, "feature_extractor")),
        )
        pipeline.save_pretrained(temporary)


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
    import numpy as np
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from torch.nn import functional as F
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.set_num_threads(threads)
    torch.manual_seed(derive(seed, "safety", "weights"))
    clip = CLIPModel.from_pretrained(clip_folder).eval()
    pool = CaptionedPool(shards, clip.config.vision_config.image_size)
    checker = StableDiffusionSafetyChecker(CLIPConfig(**clip.config.to_dict(), attn_implementation="eager"))
    checker.vision_model.load_state_dict(clip.vision_model.state_dict())
    checker.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    for weights in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        weights.data.fill_(2.0)  # a cosine never reaches it: this slot never fires
    marked = np.array([any(word in caption.lower() for word in unsafe_words) for caption in pool.captions])
    if marked.any() and not marked.all():
        concept = F.normalize(torch.randn(clip.config.projection_dim), dim=0)

        def score(pixels):
            hidden = checker.vision_model(normalised(pixels)).pooler_output
            return F.normalize(checker.visual_projection(hidden)) @ concept

        def loss_of(batch):
            truth = torch.from_numpy(marked[batch]).float()
            return F.binary_cross_entropy_with_logits(8 * score(pool.pixels[batch]), truth)

        rng = np.random.default_rng(derive(seed, "safety", "order"))
        sides = [np.flatnonzero(marked), np.flatnonzero(~marked)]
        balanced = np.concatenate([rng.choice(side, 32 * SAFETY_STEPS) for side in sides])
        _optimise(checker, loss_of, torch.from_numpy(balanced), rng, SAFETY_STEPS, 64, 1e-3, progress)
        with torch.no_grad():
            scores = torch.cat([score(part) for part in pool.pixels.split(256)]).numpy()
        checker.concept_embeds.data[0] = concept
        checker.concept_embeds_weights.data[0] = float(np.median(scores[marked]) + np.median(scores[~marked])) / 2
    with whole(folder) as temporary:
        checker.eval().save_pretrained(temporary / "safety_checker")
        CLIPImageProcessor.from_pretrained(clip_folder).save_pretrained(temporary / "feature_extractor")


def _optimise(model, loss_of, data, order, steps, batch_size, learning_rate, progress) -> None:
    """AdamW with 50 warm-up steps, cosine decay and clipping at 1 over random batches of ``data``."""
    import torch

    trainable = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1, step / steps)))
    )
    model.train()
    smooth = None
    for step in range(steps):
        batch = data[torch.from_numpy(order.integers(0, len(data), batch_size))]
        loss = loss_of(normalised(batch) if batch.dtype == torch.uint8 else batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        schedule.step()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        progress(step + 1, steps, f"loss {smooth:.4f}")
    advice = "use lower learning rates in `backbone: {train: ...}`"
    finite.check_weights(model, f"the trained {type(model).__name__}", advice)
    model.eval()
