"""The made-up web and target of the digits study."""

from typing import Annotated

from pydantic import Field

from augbench.study.sections.base import Section, Share


class Digits(Section):
    test: Annotated[int, Field(ge=10, le=1200)] = Field(600, description="scans in the test split")
    web_scans: Annotated[int, Field(ge=10, le=1200)] = Field(500, description="scans that appear on the web only")
    web_pictures: Annotated[int, Field(ge=100)] = Field(6000, description="pictures on the web")
    letters: Share = Field(0.06, description="share of pictures of printed letters")
    handwritten: Share = Field(0.35, description="share of pictures of handwritten digits")
    unsafe: Share = Field(0.05, description="share of pictures that show the unsafe concept")
    unaesthetic: Share = Field(0.15, description="share of pictures with an aesthetic score below 5")
    dead: Share = Field(0.1, description="share of dead links")
    copies: int = Field(150, ge=0, description="pictures that are an exact copy of another")
    near_duplicates: int = Field(250, ge=0, description="altered copies of images of the test split")
