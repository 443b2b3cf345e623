"""Fine-tuning a diffusion model, and generating images with it."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from augbench.study.parts import PARTS, Part
from augbench.study.sections.base import Count, Positive, Section


class Generate(Section):
    image_size: Count | None = Field(None, description="pixels; null: what the backbone's pipeline draws of itself")
    times: Positive = Field(3, description="images generated per class, as a multiple of its training images")
    images_per_class: Count | None = Field(
        None, description="smallest number per class, 390 in the paper; null: `times` alone"
    )
    steps: Count | None = Field(None, description="denoising steps; null: the pipeline's own number")
    guidance: float | None = Field(
        None, description="classifier-free guidance scale, or what the model has in its place; null: the pipeline's own"
    )
    batch_size: Count = Field(32, description="images denoised at a time")
    format: Literal["png", "jpeg", "webp"] = Field(
        "png", description="of the images' files; png keeps every bit, the others take a fifth to a third of the disk"
    )
    quality: Annotated[int, Field(ge=1, le=100)] = Field(95, description="of jpeg and webp; png has none")
    max_replacements: Count = Field(50, description="draws per image before the safety checker's veto is an error")
    noise_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="share of the schedule that a start image is noised to (Boomerang)"
    )
    negative_prompt: str = Field("", description="what guidance leads away from")
    threads: Count = Field(1, description="CPU threads; results depend on it in low bits, so --cores does not set it")


class Sampling(Generate):
    """The section as a sampler has it: nothing is left open."""

    image_size: Count
    steps: Count
    guidance: float


def learning_rates(parts: Collection[Part]) -> type[Section]:
    """A section with a learning rate for each part, by its name."""
    rates: dict[str, Any] = {
        part.name: (Positive, Field(part.learning_rate, description=part.learning_rate_of)) for part in parts
    }
    return create_model(
        "LearningRates",
        __base__=Section,
        __doc__="AdamW learning rates for a batch of one; larger batches scale them by their square root.",
        **rates,
    )


def settings_of(parts: Collection[Part]) -> type[Section]:
    """A section with a section, by the part's name, for each part that has settings of its own."""
    sections: dict[str, Any] = {part.name: (part.settings, part.settings()) for part in parts if part.settings}
    return create_model("PartSettings", __base__=Section, **sections)


LearningRates = learning_rates(PARTS.values())


class Finetune(settings_of(PARTS.values())):
    learning_rates: LearningRates = LearningRates()  # pyright: ignore[reportInvalidTypeForm] (made of the registry)
    grid: list[Positive] = Field(
        [1.0],
        min_length=1,
        description="factors on all learning rates; the one with the lowest validation loss is kept",
    )
    batch_size: Count = Field(64, description="images per step, over all processes")
    images_at_a_time: Count = Field(
        16, description="images per forward pass and process (micro-batch); gradients add up to the batch"
    )
    max_epochs: Count = Field(40, description="largest number of epochs; 3 for full ImageNet in the paper")
    patience: Count = Field(3, description="epochs without lower validation loss: stop")
    validation_images: Count = Field(5000, description="largest number of validation images for the loss")
    horizontal_flip: bool = Field(False, description="train on mirrored images as well")
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto", description="less memory for about a third more time; auto: on a GPU only where its memory runs out"
    )
    embedding: Literal["clip", "inception_v3"] = Field(
        "clip",
        description="of images, for clusters: the study's CLIP, or torchvision's Inception (fetched), as the paper",
    )
    processes: Count = Field(1, description="that share each batch, one per GPU")
    threads: Count = Field(1, description="CPU threads; results depend on it in low bits, so --cores does not set it")
