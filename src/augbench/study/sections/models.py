"""Pretrained models, or how small ones are trained on the pool."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from augbench.study.sections.base import Count, Positive, Section, exactly_one


class ClipTraining(Section):
    image_size: Count = Field(description="pixels")
    patch_size: Count = Field(description="pixels")
    width: Count = Field(description="of both transformers")
    layers: Count = Field(description="of both transformers")
    heads: Count = Field(description="of both transformers")
    projection: Count = Field(description="dimension of the embedding")
    text_tokens: Annotated[int, Field(ge=4, le=77)] = Field(
        description="captions are truncated to this number of tokens"
    )
    steps: Count = Field(description="training steps")
    batch_size: Count = Field(description="image-text pairs per step")
    learning_rate: Positive = Field(description="peak, AdamW")
    threads: Count = Field(1, description="CPU threads; results depend on it in low bits, so --cores does not set it")


class Clip(Section):
    model: str | None = Field(None, description="a name that clip-retrieval takes, e.g. ViT-L/14 or hf_clip:FOLDER")
    train: ClipTraining | None = Field(None, description="train a small one on the pool instead")

    @model_validator(mode="after")
    def _one(self):
        return exactly_one(self, "clip", "model", "train", "model: ViT-L/14")


class BackboneTraining(Section):
    image_size: Count = Field(description="pixels")
    vae_channels: list[Count] = Field(description="widths per resolution; each after the first halves it")
    latent_channels: Count = Field(4, description="channels of the latents")
    vae_steps: Count = Field(description="training steps of the autoencoder")
    vae_batch_size: Count = Field(64, description="images per step of the autoencoder")
    unet_channels: list[Count] = Field(description="widths per resolution; each after the first halves it")
    unet_steps: Count = Field(description="training steps of the denoiser")
    text_tokens: Annotated[int, Field(ge=4, le=77)] = Field(description="prompts are padded to this number of tokens")
    batch_size: Count = Field(description="images per step of the denoiser")
    learning_rate: Positive = Field(description="peak of the denoiser, AdamW")
    vae_learning_rate: Positive = Field(2e-3, description="peak of the autoencoder, AdamW")
    unsafe_words: list[str] = Field([], description="words in captions that mark what the safety checker is to flag")
    threads: Count = Field(1, description="CPU threads; results depend on it in low bits, so --cores does not set it")


class Safety(Section):
    """What generated and retrieved images are checked by: those that show unsafe content are not added."""

    model: str = Field(
        "auto",
        description="auto: the checker that the backbone ships; none: nothing is checked; or hub id or local folder of "
        "one, e.g. CompVis/stable-diffusion-safety-checker",
    )

    @property
    def is_backbones(self) -> bool:
        return self.model == "auto"

    @property
    def named(self) -> str | None:
        """The checker that is named; None where it is the backbone's, or where there is none."""
        return None if self.model in ("auto", "none") else self.model

    @property
    def checks(self) -> bool:
        return self.model != "none"


class Loading(Section):
    """How a backbone is loaded to generate images."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="of its numbers as it generates; auto: on a GPU its family's half precision, else float32"
    )
    offload: Literal["none", "model", "sequential"] = Field(
        "none",
        description="for GPUs with little memory: one part of the model there at a time (model), or one layer "
        "(sequential, many times slower)",
    )


class Backbone(Loading):
    model: str | None = Field(
        None,
        description="hub id or local diffusers folder of a text-to-image pipeline, e.g. CompVis/stable-diffusion-v1-4",
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub; null: its main branch")
    variant: Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")] | None = Field(
        None, description="of the weights, e.g. fp16: no others are fetched; null: those without a variant's name"
    )
    train: BackboneTraining | None = Field(None, description="train a small one on the pool instead")

    @model_validator(mode="after")
    def _one(self):
        exactly_one(self, "backbone", "model", "train", "model: CompVis/stable-diffusion-v1-4")
        if self.train and (self.revision or self.variant):
            raise ValueError("revision and variant are those of a `model`; leave them out beside `train`")
        return self

    @property
    def loading(self) -> Loading:
        return Loading(dtype=self.dtype, offload=self.offload)
