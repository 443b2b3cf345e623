"""The sampler: generates images with a diffusion model, wherever conditioning and start come from."""

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from augbench import images
from augbench.core import finite
from augbench.core.files import whole
from augbench.core.seeds import derive, generator, torch_generator
from augbench.diffusion import conditioning
from augbench.models.backbones import SafetyChecker, load_pipeline
from augbench.study import prompts

DECODED = 8  # images that the VAE decodes at a time; a T4 has no room for more at 512 pixels


def plan(
    classes: Sequence[Mapping],
    counts: Sequence[int],
    method: Mapping,
    key: tuple,
    *,
    cluster_sizes: Mapping[str, Sequence[int]] | None = None,
) -> list[dict]:
    """What to generate: one row per image, with class, index, prompt and what else guides it.

    Parameters
    ----------
    classes : what is known of each class, see :func:`augbench.study.prompts.fill`
    counts : images of each class; the first rows of a class do not depend on it
    method : the method's row of the method table
    key : (study seed, method); with class and index it seeds every image, so that candidates of a fine-tuning are
        compared by the same prompts and the same noise
    cluster_sizes : class -> training images in each of its clusters, for learned conditionings of clusters

    Rows have ``word`` (number of the class's pseudo-word) and ``vector`` (row of the learned conditionings) where the
    method has such.
    """
    rows = []
    for number, (about, count) in enumerate(zip(classes, counts, strict=True)):
        name = about["class"]
        texts = prompts.draw(method["conditioning"], method["templates"], about, count, *key, name)
        made = [{"class": name, "number": number, "index": i, "prompt": text} for i, text in enumerate(texts)]
        if "pseudo_word" in method["trained"]:
            for row in made:
                row["word"] = number
        if "conditioning" in method["trained"]:
            sizes = cluster_sizes[name] if cluster_sizes else [1]
            for row, cluster in zip(made, prompts.spread(count, sizes), strict=True):
                row["vector"] = number * method["clusters"] + cluster
                which = f"cluster {cluster + 1} of {len(sizes)}, " if cluster_sizes else ""
                row["prompt"] += f" ({which}learned)"
        rows += made
    return rows


def batches(rows: list[dict], size: int, part: int = 0, parts: int = 1) -> list[list[dict]]:
    """One part's share of the rows in batches.

    Batches run across classes and prompts. They are cut before they are dealt out: the make-up of a batch can
    change low bits of its images, so it must not depend on the number of parts.
    """
    cut = [rows[start : start + size] for start in range(0, len(rows), size)]
    return cut[part * len(cut) // parts : (part + 1) * len(cut) // parts]


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


def step_noise(scheduler, seeds: Sequence[int]) -> dict:
    """What ``scheduler.step`` wants so that noise it draws itself depends on each image's seed alone.

    Raises ValueError for a scheduler that cannot be told.
    """
    if "generator" in inspect.signature(scheduler.step).parameters:
        return {"generator": [torch_generator(derive(seed, "steps")) for seed in seeds]}
    if "noise_sampler_seed" in scheduler.config:
        kind = type(scheduler).__name__
        raise ValueError(
            f"{kind} draws noise for whole batches; give the backbone another scheduler, e.g. PNDMScheduler"
        )
    return {}


class Sampler:
    """A diffusion model in memory, ready to turn batches of rows into pictures."""

    def __init__(
        self,
        pipeline_folder: str | Path,
        *,
        start_latents: str | Path | None = None,
        starts: Mapping[str, Sequence[int]] | None = None,
        image_size: int,
        steps: int,
        guidance: float,
        noise_share: float,
        max_replacements: int,
        threads: int,
    ):
        """
        Parameters
        ----------
        start_latents : file of the start images' posteriors, see :mod:`augbench.diffusion.latents`
        starts : class -> positions of its images among them
        image_size : pixels; steps : denoising steps of the pipeline's own scheduler
        guidance : classifier-free guidance scale; 1 or less means none, and an empty prompt has none
        noise_share : share of the schedule to which start images are noised
        """
        import torch

        torch.set_num_threads(threads)
        self.pipeline = load_pipeline(pipeline_folder)
        self.checker = SafetyChecker(pipeline_folder)
        self.device, self.dtype = self.pipeline.device, self.pipeline.unet.dtype
        self.use({})
        self.image_size, self.steps = image_size, steps
        self.latents, self.starts = self._means(start_latents) if start_latents else None, starts or {}
        self.guidance, self.noise_share, self.max_replacements = guidance, noise_share, max_replacements

    def use(self, candidate: Mapping) -> "Sampler":
        """Take a fine-tuning's result (:mod:`augbench.diffusion.conditioning`) in place of another of its kind."""
        if weights := conditioning.unet_weights(candidate):
            self.pipeline.unet.load_state_dict(weights)
        if "pseudo_word" in candidate:
            conditioning.with_pseudo_words(self.pipeline.text_encoder, candidate["pseudo_word"].to(self.device))
        self.vectors = candidate.get("conditioning")
        self.encode = conditioning.TextEncodings(self.pipeline.tokenizer, self.pipeline.text_encoder)
        return self

    def _means(self, file: str | Path):
        """The means of posteriors, scaled as the denoiser knows latents, float32 (n, channels, height, width)."""
        from safetensors.torch import load_file

        return load_file(file)["parameters"].float().chunk(2, dim=1)[0] * self.pipeline.vae.config.scaling_factor

    def encodings(self, rows: Sequence[Mapping]):
        """What guides each row, (n, tokens, width)."""
        import torch

        if "vector" in rows[0]:
            return torch.stack([self.vectors[row["vector"]] for row in rows]).to(self.device, self.dtype)
        words = [(prompts.pseudo_word(row["class"]), row["word"]) if "word" in row else None for row in rows]
        return self.encode([row["prompt"] for row in rows], words)

    def noise(self, seed: int):
        """Standard normal latents (channels, height, width), the same for every device."""
        import torch

        side = self.image_size // self.pipeline.vae_scale_factor
        shape = (self.pipeline.unet.config.in_channels, side, side)
        return torch.randn(shape, generator=torch_generator(seed))

    def denoise(self, rows: Sequence[Mapping]) -> list:
        """The pictures of a batch of rows with ``seed`` and, from images, ``start``, as RGB ``PIL.Image``."""
        import torch

        pipeline, scheduler = self.pipeline, self.pipeline.scheduler
        guided = self.guidance > 1 and any(row["prompt"] for row in rows)
        guides = self.encodings(rows)
        if guided:
            guides = torch.cat([self.encode([""] * len(rows)), guides])
        scheduler.set_timesteps(self.steps, device=self.device)
        timesteps = scheduler.timesteps
        latents = torch.stack([self.noise(row["seed"]) for row in rows])
        if "start" in rows[0]:
            timesteps = last_steps(scheduler, max(1, round(self.noise_share * self.steps)))
            begin = self.latents[[row["start"] for row in rows]]
            latents = scheduler.add_noise(begin, latents, timesteps[:1].cpu().repeat(len(rows)))
        else:
            latents = latents * scheduler.init_noise_sigma
        latents = latents.to(self.device, self.dtype)
        fresh = step_noise(scheduler, [row["seed"] for row in rows])
        for step in timesteps:
            inputs = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, step)
            output = pipeline.unet(inputs, step, encoder_hidden_states=guides, return_dict=False)[0]
            if guided:
                without, towards = output.chunk(2)
                output = without + self.guidance * (towards - without)
            latents = scheduler.step(output, step, latents, return_dict=False, **fresh)[0]
        names = [f"image {row['index']} of class {row['class']}, prompt {row['prompt']!r}" for row in rows]
        precision = f"its weights may be damaged, or too large for {str(self.dtype).removeprefix('torch.')}"
        finite.check(latents, "the denoiser (unet)", names, precision)
        parts = (latents / pipeline.vae.config.scaling_factor).split(DECODED)
        decoded = torch.cat([pipeline.vae.decode(part, return_dict=False)[0].float() for part in parts])
        finite.check(decoded, "the decoder (vae)", names, precision)
        return pipeline.image_processor.postprocess(decoded, output_type="pil")

    def draw(self, rows: Sequence[dict], key: tuple) -> list:
        """Pictures of a batch, those that the safety checker refuses drawn again with the next seed (section 3), and
        from another start image where they start from one.

        Notes ``seed``, ``replaced``, the number of refused draws, and ``start``, the position of the start image among
        the latents, in the rows. Raises RuntimeError when an image was refused more than ``max_replacements`` times.
        """
        import torch

        pictures = [None] * len(rows)
        waiting = list(range(len(rows)))
        with torch.inference_mode():
            for attempt in range(self.max_replacements + 1):
                for i in waiting:
                    seed = derive(*key, rows[i]["class"], rows[i]["index"], attempt)
                    rows[i] |= {"seed": seed, "replaced": attempt}
                    if self.latents is not None:
                        positions = self.starts.get(rows[i]["class"], ())
                        rows[i]["start"] = start_image(positions, key, rows[i], attempt)
                fresh = self.denoise([rows[i] for i in waiting])
                refused = self.checker.unsafe(fresh)
                for i, picture in zip(waiting, fresh, strict=True):
                    pictures[i] = picture
                waiting = [i for i, bad in zip(waiting, refused, strict=True) if bad]
                if not waiting:
                    return pictures
        raise RuntimeError(self._refusal(rows[waiting[0]]))

    def _refusal(self, row: Mapping) -> str:
        """A sentence for an image that was refused too often: why, and what the user of such a method can change."""
        if "start" in row:
            tried = min(self.max_replacements + 1, len(self.starts[row["class"]]))
            cause = f"from {tried} of the {len(self.starts[row['class']])} training images"
            remedy = "leave the class out of the target"
        elif "vector" in row or "word" in row:
            cause, remedy = "guided by what was learned", "write lower `finetune.learning_rates`"
        else:
            cause, remedy = f"for the prompt {row['prompt']!r}", "change the prompt"
        return (
            f"the safety checker refused {self.max_replacements + 1} draws {cause} of the class {row['class']}; "
            f"{remedy}, or raise `generate.max_replacements`"
        )


@dataclass(frozen=True)
class Work:
    """Batches to generate with one model.

    ``key`` is (study seed, method); ``candidate`` names the model in the images' ids; ``who`` identifies model and
    settings, see :func:`augbench.core.resume.identity`; ``sampler`` loads the model and is called only if there is
    work.
    """

    sampler: Callable[[], Sampler]
    batches: list[list[dict]]
    key: tuple
    candidate: str
    who: str


def generate(
    work: Sequence[Work],
    shard: str | Path,
    table: str | Path,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Generate images into a WebDataset shard and its image table.

    Each image starts from noise of its own seed, derived from the key, class, index and attempt. Finished
    batches are kept beside the shard until :func:`forget`; a killed job goes on after them. Encoding and writing run
    in the background.
    """
    shard = Path(shard)
    done = _batches_of(shard)
    total, made, parts = sum(len(rows) for of in work for rows in of.batches), 0, []
    with ThreadPoolExecutor(1) as writer:
        writing = []
        for of in work:
            sampler = None
            for rows in of.batches:
                name = hashlib.sha256(json.dumps([of.who, of.key, of.candidate, rows]).encode()).hexdigest()
                file = done / f"{name}.tar"
                parts.append((of.key[1], of.candidate, file))
                if not file.exists():
                    sampler = sampler or of.sampler()
                    drawn = [dict(row) for row in rows]
                    writing.append(writer.submit(_write_batch, file, drawn, sampler.draw(drawn, of.key)))
                    if len(writing) > 2:
                        writing.pop(0).result()  # an error must not wait for the end, nor may memory fill up
                made += len(rows)
                progress(made, total, "images")
        for batch in writing:
            batch.result()
    _join(parts, shard, table)


def forget(shard: str | Path) -> None:
    """Remove the finished batches that :func:`generate` keeps beside a shard, once nothing can go wrong any more."""
    shutil.rmtree(_batches_of(Path(shard)), ignore_errors=True)


def _batches_of(shard: Path) -> Path:
    return shard.parent / f".{shard.name}.batches"


def _write_batch(path: Path, rows: Sequence[Mapping], pictures: Sequence) -> None:
    with whole(path) as temporary, images.ShardWriter(temporary) as writer:
        for row, picture in zip(rows, pictures, strict=True):
            facts = {name: row[name] for name in ("class", "index", "seed", "replaced")}
            members = {"png": images.encode_png(picture), "txt": row["prompt"], "json": facts}
            # Not the class's own name: WebDataset ends a sample's name at its first dot.
            writer.add(f"{row['number']:04d}-{row['index']:05d}", members, of="png")


def _join(parts: Sequence[tuple[str, str, Path]], shard: Path, table: str | Path) -> None:
    """One shard, and its image table, from the shards of the batches: method, candidate and file of each."""
    made = []
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for method, candidate, file in parts:
            for name, members in images.read_shard(file):
                offset, length = writer.add(f"{candidate.replace('.', '_')}-{name}", members, of="png")
                facts = json.loads(members["json"])
                made.append(
                    {
                        "image_id": f"{method}/{candidate}/{facts['class']}-{facts['index']:05d}",
                        "class": facts["class"],
                        "path": str(shard),
                        "offset": offset,
                        "length": length,
                        "prompt": members["txt"].decode(),
                        "seed": facts["seed"],
                        "candidate": candidate,
                        "replaced": facts["replaced"],
                    }
                )
    images.write(table, images.table(made))
