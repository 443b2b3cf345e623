"""Learned words of prompts (textual inversion): how a tokenizer and a text encoder read them."""

from collections.abc import Sequence

MARK = "*"  # a token of CLIP's vocabulary that no template uses; it stands for the pseudo-word in tokenizing


def tokenize(tokenizer, texts: Sequence[str], words: Sequence[tuple[str, int] | None] | None = None):
    """Token numbers int64 (n, tokens), cut or padded to the tokenizer's length.

    ``words`` holds for each prompt its pseudo-word as written and the word's number, or None. A pseudo-word
    becomes the token ``vocabulary size + number``. Raises ValueError for a prompt without its pseudo-word.
    """
    words = words or [None] * len(texts)
    marked = [
        text if word is None else text.replace(word[0], f" {MARK} ") for text, word in zip(texts, words, strict=True)
    ]
    tokens = tokenizer(marked, padding="max_length", truncation=True, return_tensors="pt").input_ids
    mark = tokenizer(MARK, add_special_tokens=False).input_ids[0]
    for row, word in zip(tokens, words, strict=True):
        if word is not None:
            if not (row == mark).any():
                raise ValueError("the pseudo-word is cut off or missing in a prompt; the template must have {p} early")
            row[row == mark] = len(tokenizer) + word[1]
    return tokens


def initial(tokenizer, text_encoder, lemmas: Sequence[str]):
    """Where pseudo-words start: the embedding of the last word of the first lemma, (classes, width).

    The mean of its tokens' embeddings where the word has several (section 3.1).
    """
    import torch

    table = text_encoder.get_input_embeddings().weight
    last = [names.split(",")[0].split()[-1] for names in lemmas]
    tokens = tokenizer(last, add_special_tokens=False).input_ids
    return torch.stack([table[row].mean(0) for row in tokens]).detach().clone().float()


def attach(tokenizer, text_encoder, words):
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

    # Published encoders pool at the highest number, the end of the text among their own tokens, but a word here.
    for module in text_encoder.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = tokenizer.eos_token_id
    embedding = text_encoder.get_input_embeddings()
    text_encoder.set_input_embeddings(WithPseudoWords(getattr(embedding, "table", embedding), words))
    return text_encoder
