"""The families of diffusion models that can be a study's backbone: a class for each, and the table of them.

The class in a folder's ``model_index.json`` decides which family it is of. Nothing else in the program compares a
family with a string: it asks the object. A new family is a class here and a row of ``FAMILIES``. Steps, guidance and
size are those of the pipelines' signatures in diffusers 0.42. Nothing here imports torch before a pipeline is loaded.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from augbench.core.files import BadInput
from augbench.study import pseudo_words
from augbench.study.methods import Method
from augbench.study.parts import ENCODERS, Part
from augbench.study.sections.diffusion import Generate, Sampling


class Family:
    """What the program asks of a family; these answers hold unless a class below says otherwise."""

    name: str  # in messages, tables and the docs
    pipelines: tuple[str, ...]  # classes in model_index.json
    hub_ids: tuple[str, ...] = ()  # how the ids of well-known repositories begin
    gated_ids: tuple[str, ...] = ()  # of these, those whose terms have to be accepted first
    parts: tuple[str, ...] = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")  # that a folder must have
    denoiser = "transformer"
    steps = 50
    guidance = 5.0
    image_size = 1024
    dtype = "bfloat16"  # on a GPU, where `dtype: auto`
    is_flow: bool | None = True  # flow matching is the scheduler's objective; None: unknown, not checked
    has_own_sampler = False  # augbench denoises step by step; else the pipeline's own call draws the pictures
    ships_checker = False  # its repositories have a safety checker, at least some of them
    encoding = (77, 768)  # of a prompt, as what is learned in its place has it: rows and width
    megabytes = 24_000  # of a process that has the model, about
    work = 3.0  # time of a denoising step, in those of Stable Diffusion 1.x at the same size
    bytes = 20e9  # of its files, about
    licence: str | None = None  # of most of its models, as the hub calls it: where a folder names none
    guidance_name = "guidance_scale"
    takes_negative_prompt = True
    neutral_prompt: str | None = None  # what guidance leads away from where there is no negative prompt

    def can_train(self, part: Part) -> bool:
        return False

    def parts_of(self, pipeline) -> tuple:
        """What training takes of a pipeline: the denoiser, and what encodes prompts as one module."""
        import torch

        encoders = torch.nn.ModuleList(encoders_of(pipeline).values())
        return getattr(pipeline, self.denoiser), encoders

    def encode(self, pipeline, prompts: Sequence[str], words: Sequence | None = None):
        """What the denoiser reads of prompts in training, (n, rows, width): the encoders' states, and in a last row
        their pooled output, followed by zeros. ``words`` are for families with pseudo-words, see :meth:`tokenize`."""
        raise NotImplementedError

    def tokenize(self, pipeline, prompts: Sequence[str], words: Sequence | None = None):
        """What :meth:`read` takes, int64 (n, ...): of families whose text encoders, or words of them, can be trained.
        ``words`` are the prompts' pseudo-words, see :func:`augbench.study.pseudo_words.tokenize`."""
        raise NotImplementedError

    def read(self, encoders: Iterable, tokens):
        """What :meth:`encode` gives, from tokens, and with gradients."""
        raise NotImplementedError

    def predict(self, denoiser, noisy, timesteps, guides, pixels: int):
        """What the denoiser predicts from noisy latents (n, channels, height, width), timesteps (n,) and guides, see
        :meth:`encode`; ``pixels`` are a side of the images."""
        raise NotImplementedError

    def guided(self, pipeline, guides) -> dict[str, Any]:
        """Arguments of the pipeline's call in place of prompts, see :meth:`encode`: of families that learn guides."""
        raise NotImplementedError

    def can_start(self, start) -> bool:
        """Whether a method's images can begin as its start says."""
        return start.begins_from_noise

    def components(self, index: Mapping) -> dict[str, Any]:
        """What of a folder with this ``model_index.json`` is loaded otherwise than diffusers would."""
        return {}

    def call(self, settings: Generate, count: int) -> dict[str, Any]:
        """Arguments of the pipeline's call for ``count`` images; what the settings leave open is left to the pipeline.

        Raises BadInput for a setting that the family does not have.
        """
        self.check_settings(settings)
        arguments: dict[str, Any] = {}
        if settings.image_size is not None:
            arguments |= {"height": settings.image_size, "width": settings.image_size}
        if settings.steps is not None:
            arguments["num_inference_steps"] = settings.steps
        if settings.guidance is not None:
            arguments[self.guidance_name] = settings.guidance
        negative = settings.negative_prompt or self.neutral_prompt
        return arguments | ({"negative_prompt": [negative] * count} if negative else {})

    def check_settings(self, settings: Generate) -> None:
        """Raise BadInput for a setting that the family does not have."""
        if settings.negative_prompt and not self.takes_negative_prompt:
            raise BadInput(f"{self.name} has no negative prompt; leave `negative_prompt` out")

    def size_of(self, folder: Path) -> int:
        """Pixels a side of the images that the model in a folder draws of itself."""
        try:
            denoiser = json.loads((folder / self.denoiser / "config.json").read_text(encoding="utf-8"))
            vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
            side, widths = denoiser["sample_size"], vae["block_out_channels"]
        except (OSError, ValueError, KeyError):
            return self.image_size
        return side * 2 ** (len(widths) - 1) if isinstance(side, int) else self.image_size

    def with_defaults(self, settings: Generate, folder: str | Path | None = None) -> Sampling:
        """Settings with the pipeline's own defaults where they leave something open."""
        own = {"steps": self.steps, "guidance": self.guidance}
        own["image_size"] = self.size_of(Path(folder)) if folder else self.image_size
        said = {key: value for key, value in settings.model_dump().items() if value is not None}
        return Sampling.model_validate(own | said)


class StableDiffusion(Family):
    """Its pictures are drawn by :class:`augbench.diffusion.sampler.Sampler`."""

    name = "Stable Diffusion 1.x and 2.x"
    pipelines = ("StableDiffusionPipeline",)
    hub_ids = ("CompVis/stable-diffusion-v1", "stable-diffusion-v1-5/", "stabilityai/stable-diffusion-2")
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    denoiser = "unet"
    guidance = 7.5
    image_size = 512
    dtype = "float16"
    is_flow = False
    has_own_sampler = True
    ships_checker = True
    megabytes = 6_000
    work = 1.0
    bytes = 5.5e9
    licence = "creativeml-openrail-m"

    def can_train(self, part):
        return True

    def can_start(self, start):
        return True

    def parts_of(self, pipeline):
        return pipeline.unet, pipeline.text_encoder

    def tokenize(self, pipeline, prompts, words=None):
        return pseudo_words.tokenize(pipeline.tokenizer, prompts, words)

    def read(self, encoders, tokens):
        (encoder,) = encoders
        return encoder(tokens)[0]

    def predict(self, denoiser, noisy, timesteps, guides, pixels):
        return denoiser(noisy, timesteps, guides, return_dict=False)[0]

    def components(self, index):
        # The pipeline's own checker blackens images; SafetyChecker says which are to be replaced.
        return {"safety_checker": None, "requires_safety_checker": False}


class StableDiffusionXL(Family):
    name = "Stable Diffusion XL"
    pipelines = ("StableDiffusionXLPipeline",)
    hub_ids = ("stabilityai/stable-diffusion-xl", "stabilityai/sdxl")
    parts = ("unet", "vae", "text_encoder_2", "tokenizer_2", "scheduler")
    denoiser = "unet"
    dtype = "float16"
    is_flow = False
    encoding = (78, 2048)
    megabytes = 14_000
    work = 2.5
    bytes = 13.9e9
    licence = "openrail++"

    def can_train(self, part):
        return part.is_adapter or part.guides

    def encode(self, pipeline, prompts, words=None):
        tokens = self.tokenize(pipeline, prompts, words).to(_device(pipeline))
        return self.read(encoders_of(pipeline).values(), tokens)

    def tokenize(self, pipeline, prompts, words=None):
        import torch

        tokenizers = tokenizers_of(pipeline).values()
        return torch.stack([pseudo_words.tokenize(tokenizer, prompts, words) for tokenizer in tokenizers], dim=1)

    def read(self, encoders, tokens):
        """The last states but one of all encoders, and the projection of the last encoder."""
        import torch

        read = [
            encoder(own, output_hidden_states=True) for encoder, own in zip(encoders, tokens.unbind(1), strict=True)
        ]
        return _with_row(torch.cat([each.hidden_states[-2] for each in read], dim=-1), read[-1][0])

    def predict(self, denoiser, noisy, timesteps, guides, pixels):
        """Images are what they were scaled to, none of them cropped: so the model is told."""
        config = denoiser.config
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        sizes = noisy.new_tensor([pixels, pixels, 0, 0, pixels, pixels]).repeat(len(noisy), 1)
        added = {"text_embeds": guides[:, -1, :width], "time_ids": sizes}
        return denoiser(noisy, timesteps, guides[:, :-1], added_cond_kwargs=added, return_dict=False)[0]

    def guided(self, pipeline, guides):
        width = pipeline.text_encoder_2.config.projection_dim
        return {"prompt_embeds": guides[:, :-1], "pooled_prompt_embeds": guides[:, -1, :width]}

    def components(self, index):
        return {"add_watermarker": False}  # else pictures are marked where invisible-watermark is installed


class StableDiffusion3(Family):
    name = "Stable Diffusion 3"
    pipelines = ("StableDiffusion3Pipeline",)
    hub_ids = ("stabilityai/stable-diffusion-3",)
    gated_ids = ("stabilityai/stable-diffusion-3",)
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "scheduler")
    steps = 28
    guidance = 7.0
    dtype = "float16"
    bytes = 16e9
    licence = "stabilityai-ai-community"

    def can_train(self, part):
        return part.is_adapter and not part.trains_encoder

    def encode(self, pipeline, prompts):
        states, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), None, None, device=_device(pipeline), do_classifier_free_guidance=False
        )
        return _with_row(states, pooled)

    def predict(self, denoiser, noisy, timesteps, guides, pixels):
        pooled = guides[:, -1, : denoiser.config.pooled_projection_dim]
        return denoiser(noisy, guides[:, :-1], pooled, timesteps, return_dict=False)[0]

    def components(self, index):
        # The third encoder may be left out, but diffusers wants to be told so.
        missing = [name for name in ("text_encoder_3", "tokenizer_3") if not any(index.get(name) or [None])]
        return dict.fromkeys(missing)


class Flux(Family):
    """Guidance is an input of the model, not classifier-free guidance."""

    name = "FLUX.1"
    pipelines = ("FluxPipeline",)
    hub_ids = ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell")
    gated_ids = hub_ids
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "scheduler")
    steps = 28
    guidance = 3.5
    megabytes = 40_000
    work = 10.0
    bytes = 34e9
    licence = "flux-1-dev-non-commercial-license"  # the stricter one of two
    takes_negative_prompt = False

    def can_train(self, part):
        return part.is_adapter and not part.trains_encoder

    def encode(self, pipeline, prompts):
        states, pooled, _ = pipeline.encode_prompt(list(prompts), device=_device(pipeline))
        return _with_row(states, pooled)

    def predict(self, denoiser, noisy, timesteps, guides, pixels):
        """Latents are read in squares of two by two."""
        count, channels, height, width = noisy.shape
        squares = noisy.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        places = noisy.new_zeros(height // 2, width // 2, 3)
        places[..., 1] += noisy.new_tensor(range(height // 2))[:, None]
        places[..., 2] += noisy.new_tensor(range(width // 2))[None]
        states = guides[:, :-1]
        predicted = denoiser(
            hidden_states=squares.reshape(count, -1, 4 * channels),
            timestep=timesteps / 1000,
            guidance=noisy.new_full((count,), self.guidance).float() if denoiser.config.guidance_embeds else None,
            pooled_projections=guides[:, -1, : denoiser.config.pooled_projection_dim],
            encoder_hidden_states=states,
            txt_ids=noisy.new_zeros(states.shape[1], 3),
            img_ids=places.reshape(-1, 3),
            return_dict=False,
        )[0]
        squares = predicted.view(count, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return squares.reshape(count, channels, height, width)

    def size_of(self, folder):
        try:
            vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
            return 128 * 2 ** (len(vae["block_out_channels"]) - 1)
        except (OSError, ValueError, KeyError):
            return self.image_size


class Sana(Family):
    name = "Sana"
    pipelines = ("SanaPipeline",)
    hub_ids = ("Efficient-Large-Model/Sana", "Efficient-Large-Model/SANA1.5")
    steps = 20
    guidance = 4.5
    megabytes = 16_000
    work = 0.5
    bytes = 12e9

    def size_of(self, folder):
        return self.image_size  # of the call, whatever the model


class PixArt(Family):
    name = "PixArt-Sigma and PixArt-alpha"
    pipelines = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
    hub_ids = ("PixArt-alpha/",)
    steps = 20
    guidance = 4.5
    dtype = "float16"
    is_flow = False
    work = 1.0
    bytes = 22e9
    licence = "openrail++"


class QwenImage(Family):
    """Its classifier-free guidance needs a prompt to lead away from."""

    name = "Qwen-Image"
    pipelines = ("QwenImagePipeline",)
    hub_ids = ("Qwen/Qwen-Image",)
    guidance = 4.0
    megabytes = 64_000
    work = 15.0
    bytes = 58e9
    licence = "apache-2.0"
    guidance_name = "true_cfg_scale"
    neutral_prompt = " "  # its authors' own


class Other(Family):
    """Further text-to-image pipelines of diffusers, of which nothing but their call is known."""

    name = "another text-to-image pipeline"
    pipelines = (
        "AuraFlowPipeline",
        "ChromaPipeline",
        "CogView3PlusPipeline",
        "CogView4Pipeline",
        "HunyuanDiTPipeline",
        "Kandinsky3Pipeline",
        "Krea2Pipeline",
        "Lumina2Pipeline",
        "LuminaPipeline",
        "OvisImagePipeline",
        "PRXPipeline",
        "ZImagePipeline",
    )
    parts = ("scheduler",)
    is_flow = None

    def size_of(self, folder):
        return self.image_size


class Unguided(Other):
    """Further ones whose call takes no negative prompt."""

    name = "another text-to-image pipeline without a negative prompt"
    pipelines = ("Flux2KleinPipeline", "Flux2Pipeline", "LatentConsistencyModelPipeline")
    takes_negative_prompt = False

    def components(self, index):
        is_stable_diffusion = "safety_checker" in index
        return {"safety_checker": None, "requires_safety_checker": False} if is_stable_diffusion else {}


FAMILIES: tuple[Family, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    StableDiffusion3(),
    Flux(),
    Sana(),
    PixArt(),
    QwenImage(),
    Other(),
    Unguided(),
)
DEFAULT = FAMILIES[0]  # of small models that are trained here, and of what is not known before it is fetched


def encoders_of(pipeline) -> dict[str, Any]:
    """A pipeline's text encoders, by diffusers' names."""
    return {name: encoder for name in ENCODERS if (encoder := getattr(pipeline, name, None)) is not None}


def tokenizers_of(pipeline) -> dict[str, Any]:
    """Their tokenizers, by the encoders' names."""
    return {name: getattr(pipeline, ENCODERS[name]) for name in encoders_of(pipeline)}


def _device(pipeline):
    return next(
        encoder.device for name, encoder in pipeline.components.items() if encoder and name.startswith("text_en")
    )


def _with_row(states, pooled):
    """Encodings (n, rows, width) with one more row, of numbers (n, at most width) and zeros."""
    import torch

    row = torch.nn.functional.pad(pooled, (0, states.shape[-1] - pooled.shape[-1])).to(states.dtype)
    return torch.cat([states, row[:, None]], dim=1)


def of_class(pipeline: str | None, where: str) -> Family:
    """The family of a pipeline's class, as ``model_index.json`` names it. Raises ValueError with what to write."""
    for family in FAMILIES:
        if pipeline in family.pipelines:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.pipelines)
    raise ValueError(
        f"{where} is a {pipeline}, which draws no pictures from prompts alone, or not in one call; give a model of "
        f"one of these classes: {known}"
    )


def of_folder(folder: str | Path) -> Family:
    """The family of the pipeline in a folder. Raises ValueError with what to write."""
    index = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    return of_class(index.get("_class_name"), str(folder))


def of_name(model: str) -> Family | None:
    """The family of a model that is named in a configuration; None where that is not known before it is fetched."""
    if (Path(model) / "model_index.json").is_file():
        return of_folder(model)
    return next((family for family in FAMILIES if model.startswith(family.hub_ids or ("\0",))), None)


def check_method(family: Family, method: Method, name: str) -> None:
    """Raise ValueError where a method's images cannot be had of a family; ``name`` is the method's."""
    if not family.can_start(method.start):
        others = [each.name for each in FAMILIES if each.can_start(method.start)]
        raise ValueError(
            _impossible(name, f"begins otherwise than from noise (`start: {method.start.name}`)", family, others)
        )
    for part in method.trained:
        if not family.can_train(part):
            others = [each.name for each in FAMILIES if each.can_train(part)]
            raise ValueError(_impossible(name, f"fine-tunes {part.name}", family, others))


def _impossible(name: str, what: str, family: Family, others: Sequence[str]) -> str:
    return (
        f"{name} {what}, which is not possible with {family.name}; leave the method out, or take a backbone of "
        f"another family ({', '.join(others)})"
    )


def is_flow(scheduler: Mapping) -> bool:
    """Whether flow matching is the objective of a scheduler with this configuration."""
    if str(scheduler.get("_class_name")).startswith("FlowMatch") or scheduler.get("use_flow_sigmas"):
        return True
    return scheduler.get("prediction_type") == "flow_prediction"


def check_objective(family: Family, scheduler: Mapping, where: str) -> None:
    """Raise ValueError where a pipeline's scheduler is for models of another objective: it would sample, but noise."""
    if family.is_flow is None or family.is_flow == is_flow(scheduler):
        return
    kinds = {True: "flow matching", False: "the prediction of noise or velocity"}
    raise ValueError(
        f"{where} has the scheduler {scheduler.get('_class_name')} for {kinds[not family.is_flow]}, but {family.name} "
        f"is trained for {kinds[family.is_flow]}; give it the scheduler that it was published with"
    )
