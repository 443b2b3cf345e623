"""Encodings of prompts by a frozen text encoder."""

from collections.abc import Sequence

from augbench.core import finite
from augbench.models.families import Family
from augbench.study import pseudo_words

KEPT = 4096  # encodings in the host's memory; one of Stable Diffusion's takes 118 KB


class FamilyEncodings:
    """What a denoiser of another family than Stable Diffusion's reads of prompts, each computed once and alone: which
    prompts come together must not change the low bits of any."""

    def __init__(self, pipeline, family: Family, encoders):
        self.pipeline, self.family, self.encoders = pipeline, family, encoders
        self.known = {}

    def __call__(self, prompts: Sequence[str]):
        """Encodings (n, rows, width) of n prompts, see :meth:`augbench.models.families.Family.encode`."""
        import torch

        self.encoders.eval()  # T5 would drop some of what it reads
        if len(self.known) > KEPT:
            self.known.clear()
        with torch.no_grad():
            for text in dict.fromkeys(prompts):
                if text not in self.known:
                    encodings = self.family.encode(self.pipeline, [text])
                    finite.check(encodings, "the text encoder", [f"the prompt {text!r}"])
                    self.known[text] = encodings[0].to("cpu", copy=True)
        return torch.stack([self.known[text] for text in prompts])


class TextEncodings:
    """Encodings (tokens, width) of prompts, each computed once."""

    def __init__(self, tokenizer, text_encoder, batch_size: int = 64):
        self.tokenizer, self.text_encoder, self.batch_size = tokenizer, text_encoder, batch_size
        self.known = {}

    def __call__(self, prompts: Sequence[str], words: Sequence[tuple[str, int] | None] | None = None):
        """Encodings (n, tokens, width) of n prompts; ``words`` are their pseudo-words, see
        :func:`augbench.study.pseudo_words.tokenize`."""
        import torch

        keys = list(zip(prompts, words or [None] * len(prompts), strict=True))
        fresh = [key for key in dict.fromkeys(keys) if key not in self.known]
        if len(self.known) + len(fresh) > KEPT:
            self.known.clear()
            fresh = list(dict.fromkeys(keys))
        with torch.no_grad():
            for start in range(0, len(fresh), self.batch_size):
                part = fresh[start : start + self.batch_size]
                # A batch of one shape: which prompts come together must not change the low bits of any.
                padded = part + [("", None)] * (self.batch_size - len(part))
                tokens = pseudo_words.tokenize(self.tokenizer, *map(list, zip(*padded, strict=True)))
                encodings = self.text_encoder(tokens.to(self.text_encoder.device))[0][: len(part)]
                finite.check(encodings, "the text encoder", [f"the prompt {text!r}" for text, _ in part])
                self.known |= dict(zip(part, encodings.to("cpu", copy=True), strict=True))
        return torch.stack([self.known[key] for key in keys]).to(self.text_encoder.device)
