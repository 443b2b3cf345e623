"""The pool, and how images are retrieved from it."""

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from augbench.study.sections.base import Count, Positive, RowOf, Section, Share
from augbench.study.sources import SOURCES, Source

INDEXED = ", ".join(name for name, row in SOURCES.items() if not (row.is_ready or row.is_remote))
NAMING = " and ".join(name for name, row in SOURCES.items() if row.takes_columns)
SINGLE = ", ".join(name for name, row in SOURCES.items() if row.may_be_a_file)

OPT_OUTS = ("noai", "noimageai", "noml", "noindex", "noimageindex")


class Pool(Section):
    source: Annotated[Source, RowOf(SOURCES, "source")] = Field(
        description=f"where the pool's images come from ({INDEXED} are indexed by augbench): "
        + "; ".join(f"{name}: {row.meaning}" for name, row in SOURCES.items())
    )
    path: str | None = Field(None, description=f"its folder; for {SINGLE} also a single file")
    array: str | None = Field(None, description="name of the embeddings in an npz that holds several, e.g. l14_img")
    columns: dict[Literal["url", "caption", "aesthetic"], str] = Field(
        {}, description=f"columns of {NAMING} that are called otherwise than usual, e.g. {{caption: title}}"
    )
    url: str | None = Field(None, description="of the service, e.g. http://localhost:1234/knn-service")
    index: str | None = Field(None, description="name of the service's index")
    pause: Annotated[float, Field(ge=0)] = Field(0.0, description="seconds between queries to the service")
    timeout: Positive = Field(120, description="seconds until the service must have answered")
    memory: Annotated[str, Field(pattern=r"^[0-9.]+[MG]$")] = Field(
        "4G", description="limit for building an approximate index and for searching it"
    )
    licences: list[str] | None = Field(
        None,
        min_length=1,
        description="licences of the images that may be used, as the pool's metadata state them (column licence or "
        "license), e.g. [CC0]; others, and images without one, are not downloaded; null: whatever their licence",
    )
    exact: bool = Field(True, description="search exactly; false: let autofaiss choose an approximate index")

    @model_validator(mode="after")
    def _where(self):
        if not all(getattr(self, key) for key in self.source.needs):
            keys = " and ".join(self.source.needs)
            words = f"a {keys}" if len(self.source.needs) == 1 else keys
            raise ValueError(f"source: {self.source.name} needs {words}, e.g. `{self.source.example}`")
        if self.columns and not self.source.takes_columns:
            raise ValueError(f"source: {self.source.name} has no `columns` to name; {NAMING} have")
        return self


class Retrieval(Section):
    images_per_class: Count | None = Field(
        None,
        description="smallest number per class, 130 in the paper; a class with more training images gets as many as it "
        "has, and with null every class does; all times the augmentation ratio",
    )
    overfetch: Positive = Field(1.4, description="neighbours searched at first, as a multiple of the images needed")
    overfetch_max: Positive = Field(14, description="neighbours searched at most, as a multiple of the images needed")
    min_aesthetic: float | None = Field(
        5.0, description="images with a lower aesthetic score, or with none, are discarded; null: whatever their score"
    )
    aesthetic_model: str | None = Field(
        None,
        description="a LAION head (.safetensors, .pth) for the study's CLIP, which scores the pictures themselves; "
        "null: the pool's own scores",
    )
    duplicate_threshold: Share = Field(0.94, description="cosine similarity above which two images are duplicates")
    min_image_size: Count = Field(32, description="pixels; downloads whose shorter side has fewer are not used")
    max_image_size: Count = Field(512, description="pixels; larger downloads are scaled down to it")
    max_pixels: Count = Field(50_000_000, description="images with more are not decoded")
    max_bytes: Count = Field(20_000_000, description="of a download; larger ones are aborted")
    timeout: Count = Field(10, description="seconds for a whole download")
    retries: int = Field(1, ge=0, description="further attempts to download an image")
    opt_outs: list[str] = Field(
        list(OPT_OUTS),
        description="directives of the header X-Robots-Tag by which a server forbids the use of an image; []: none "
        "counts",
    )
    blur_faces: bool = Field(
        False, description="blur faces where the pool's metadata say where they are, in a column face_bboxes"
    )
    download_threads: Count = Field(16, description="downloads at a time")
    downloads_per_host: Count = Field(4, description="downloads at a time from one host")
    threads: Count = Field(
        1,
        description="CPU threads that judge pictures while others are downloaded; part of the result's bits, so not "
        "taken from --cores",
    )
    gpu: bool = Field(False, description="judge pictures on a GPU, which retrieval in the paper did without")
    proxy: Literal["environment"] | None = Field(
        None, description="environment: download through the proxy that http_proxy and https_proxy name; null: directly"
    )
    allowed_networks: list[str] = Field(
        [], description="private networks that downloads may contact, e.g. 10.1.0.0/16; others must be public"
    )

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, value):
        for network in value:
            ipaddress.ip_network(network)
        return value
