"""The sampler: generates images from prompts with a diffusion model, whatever the conditioning comes from."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

from augbench import images
from augbench.backbone import SafetyChecker
from augbench.files import whole
from augbench.prompts import draw
from augbench.seeds import derive


def plan(classes: Iterable[tuple[str, str, int]], conditioning: str, key: tuple) -> list[dict]:
    """What to generate: one row (class, index, prompt) per image.

    Parameters
    ----------
    classes : (class key, class name, number of images)
    key : (study seed, method, candidate); with class and index it seeds every image
    """
    rows = []
    for class_key, name, count in classes:
        prompts = draw(conditioning, name, count, *key, class_key)
        rows += [{"class": class_key, "index": i, "prompt": prompt} for i, prompt in enumerate(prompts)]
    return rows


def generate(
    pipeline_folder: str | Path,
    rows: list[dict],
    shard: str | Path,
    table: str | Path,
    *,
    key: tuple,
    image_size: int,
    steps: int,
    guidance: float,
    batch_size: int,
    max_replacements: int,
    threads: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Generate the images of ``rows`` into a WebDataset shard and its image table.

    Each image starts from noise of its own seed, derived from ``key``, class, index and attempt; an image
    that the safety checker refuses is drawn again with the next attempt's seed (paper, section 3). Text
    encodings are computed once per prompt; both halves of the guidance run as one batch.

    Parameters
    ----------
    image_size : pixels; steps : denoising steps of the pipeline's own scheduler
    guidance : classifier-free guidance scale; 1 or less means none

    Raises RuntimeError when an image was refused more than ``max_replacements`` times.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    checker = SafetyChecker(pipeline_folder)
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None, torch_dtype=dtype)
    pipeline.to(device)
    encode = _text_encoder(pipeline)
    method, candidate = key[1], key[2]

    def denoise(batch: list[dict]) -> list:
        """The pictures of a batch, as RGB ``PIL.Image``."""
        latents = torch.stack([_noise(row["seed"], pipeline, image_size) for row in batch]).to(device, dtype)
        conditions = torch.stack([encode(row["prompt"]) for row in batch])
        if guidance > 1:
            conditions = torch.cat([torch.stack([encode("")] * len(batch)), conditions])
        scheduler = pipeline.scheduler
        scheduler.set_timesteps(steps, device=device)
        latents = latents * scheduler.init_noise_sigma
        for step in scheduler.timesteps:
            inputs = scheduler.scale_model_input(torch.cat([latents] * 2) if guidance > 1 else latents, step)
            output = pipeline.unet(inputs, step, encoder_hidden_states=conditions).sample
            if guidance > 1:
                unguided, guided = output.chunk(2)
                output = unguided + guidance * (guided - unguided)
            latents = scheduler.step(output, step, latents).prev_sample
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        return pipeline.image_processor.postprocess(decoded.float(), output_type="pil")

    def draw_safely(batch: list[dict]) -> list:
        """Pictures of a batch, those refused drawn again; notes seed and replacements in the rows."""
        pictures = [None] * len(batch)
        waiting = list(range(len(batch)))
        for attempt in range(max_replacements + 1):
            for i in waiting:
                batch[i] |= {
                    "seed": derive(*key, batch[i]["class"], batch[i]["index"], attempt),
                    "replaced": attempt,
                }
            fresh = denoise([batch[i] for i in waiting])
            refused = checker.unsafe(fresh)
            for i, picture in zip(waiting, fresh, strict=True):
                pictures[i] = picture
            waiting = [i for i, bad in zip(waiting, refused, strict=True) if bad]
            if not waiting:
                return pictures
        row = batch[waiting[0]]
        raise RuntimeError(
            f"the safety checker refused {max_replacements + 1} draws for the prompt {row['prompt']!r} "
            f"of class {row['class']}; change the prompt or raise max_replacements"
        )

    made = []
    with torch.inference_mode(), whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for batch in _batches(rows, batch_size):
            for row, picture in zip(batch, draw_safely(batch), strict=True):
                name = f"{row['class']}-{row['index']:05d}"
                facts = {k: row[k] for k in ("class", "seed", "replaced")}
                members = {"png": images.encode_png(picture), "txt": row["prompt"], "json": facts}
                offset, length = writer.add(name, members, of="png")
                made.append(
                    facts
                    | {
                        "image_id": f"{method}/{candidate}/{name}",
                        "path": str(shard),
                        "offset": offset,
                        "length": length,
                        "prompt": row["prompt"],
                        "candidate": candidate,
                    }
                )
            progress(len(made), len(rows), "images")
    images.write(table, images.table(made))


def _batches(rows: list[dict], size: int) -> list[list[dict]]:
    """Copies of the rows in batches of one class each.

    The shape of a batch can change low bits of its images. A batch must therefore not depend on which other
    classes a job takes.
    """
    of_class = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["class"])]
    return [
        [dict(row) for row in group[start : start + size]] for group in of_class for start in range(0, len(group), size)
    ]


def _noise(seed: int, pipeline, image_size: int):
    """Standard normal latents (channels, height, width) of one image; on the CPU, the same on every device."""
    import torch

    side = image_size // pipeline.vae_scale_factor
    shape = (pipeline.unet.config.in_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _text_encoder(pipeline):
    """A function from prompt to text encoding (tokens, width) that computes each prompt once."""
    known = {}

    def encode(prompt: str):
        if prompt not in known:
            tokens = pipeline.tokenizer(
                prompt,
                padding="max_length",
                max_length=pipeline.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(pipeline.device)
            known[prompt] = pipeline.text_encoder(tokens)[0][0]
        return known[prompt]

    return encode
