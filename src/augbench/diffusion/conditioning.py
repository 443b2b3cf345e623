"""What guides the diffusion model: text encodings of prompts, of learned pseudo-words, or learned themselves.

A *candidate* is what a fine-tuning leaves: a mapping from names to tensors, holding nothing but what was
trained. ``conditioning`` (n, tokens, width) are text encodings, n = classes x clusters; ``pseudo_word``
(classes, width) token embeddings; ``unet.NAME`` the denoiser's weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from augbench.core import finite
from augbench.core.files import whole

KEPT = 4096  # encodings in memory; one of Stable Diffusion's takes 118 KB
MARK = "*"  # a token of CLIP's vocabulary that no template uses; it stands for the pseudo-word in tokenizing


def tokenize(tokenizer, prompts: Sequence[str], words: Sequence[tuple[str, int] | None] | None = None):
    """Token numbers int64 (n, tokens), cut or padded to the tokenizer's length.

    ``words`` holds for each prompt its pseudo-word as written and the word's number, or None. A pseudo-word
    becomes the token ``vocabulary size + number``. Raises ValueError for a prompt without its pseudo-word.
    """
    words = words or [None] * len(prompts)
    texts = [
        prompt if word is None else prompt.replace(word[0], f" {MARK} ")
        for prompt, word in zip(prompts, words, strict=True)
    ]
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    mark = tokenizer(MARK, add_special_tokens=False).input_ids
    for row, word in zip(tokens, words, strict=True):
        if word is not None:
            if not (row == mark[0]).any():
                raise ValueError("the pseudo-word is cut off or missing in a prompt; the template must have {p} early")
            row[row == mark[0]] = len(tokenizer) + word[1]
    return tokens


def with_pseudo_words(text_encoder, words):
    """Let ``text_encoder`` read further tokens whose embeddings are ``words`` (n, width).

    Its own token table is not touched, so every other token stays as it was, bit by bit. Words that it was given
    before are forgotten. Returns the encoder.
    """
    import torch

    class WithPseudoWords(torch.nn.Module):
        def __init__(self, table, words):
            super().__init__()
            self.table, self.words = table, words

        def forward(self, tokens):
            size = self.table.num_embeddings
            known = self.table(tokens.clamp(max=size - 1))
            learned = self.words[(tokens - size).clamp(min=0)].to(known.dtype)
            return torch.where((tokens >= size)[..., None], learned, known)

    embedding = text_encoder.get_input_embeddings()
    text_encoder.set_input_embeddings(WithPseudoWords(getattr(embedding, "table", embedding), words))
    return text_encoder


class TextEncodings:
    """Encodings (tokens, width) of prompts by a frozen text encoder, each computed once."""

    def __init__(self, tokenizer, text_encoder, batch_size: int = 64):
        self.tokenizer, self.text_encoder, self.batch_size = tokenizer, text_encoder, batch_size
        self.known = {}

    def __call__(self, prompts: Sequence[str], words: Sequence[tuple[str, int] | None] | None = None):
        """Encodings (n, tokens, width) of n prompts."""
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
                tokens = tokenize(self.tokenizer, *map(list, zip(*padded, strict=True)))
                found = self.text_encoder(tokens.to(self.text_encoder.device))[0]
                finite.check(found[: len(part)], "the text encoder", [f"the prompt {text!r}" for text, _ in part])
                self.known |= dict(zip(part, found[: len(part)].clone(), strict=True))
        return torch.stack([self.known[key] for key in keys])


def initial_conditioning(encodings: TextEncodings, prompts: Sequence[str], clusters: int):
    """Where learned conditionings start: each class's prompt, encoded, for each of its clusters (section 3.1)."""
    return encodings(list(prompts)).repeat_interleave(clusters, 0).float()


def initial_pseudo_words(tokenizer, text_encoder, lemmas: Sequence[str]):
    """Where pseudo-words start: the embedding of the last word of the first lemma, (classes, width).

    The mean of its tokens' embeddings where the word has several (section 3.1).
    """
    import torch

    table = text_encoder.get_input_embeddings().weight
    last = [names.split(",")[0].split()[-1] for names in lemmas]
    tokens = tokenizer(last, add_special_tokens=False).input_ids
    return torch.stack([table[row].mean(0) for row in tokens]).detach().clone().float()


def unet_weights(candidate: Mapping) -> dict:
    """The denoiser's weights in a candidate, by their own names; empty where it was not trained."""
    return {name.removeprefix("unet."): value for name, value in candidate.items() if name.startswith("unet.")}


def save(path: str | Path, candidate: Mapping) -> None:
    """Write a candidate as safetensors."""
    from safetensors.torch import save_file

    with whole(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in candidate.items()}, temporary)


def load(path: str | Path) -> dict:
    from safetensors.torch import load_file

    return load_file(path)
