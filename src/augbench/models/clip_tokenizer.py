"""CLIP's tokenizer, in the files in which transformers and diffusers read it."""

import gzip
import json
from pathlib import Path

BOS, EOS = 49406, 49407  # begin and end of a text


def write_tokenizer(folder: str | Path, length: int) -> None:
    """Write CLIP's byte-pair tokenizer (49,408 tokens), made from the merges that open_clip ships.

    ``length`` is the number of tokens that texts are padded or cut to.
    """
    from open_clip.tokenizer import bytes_to_unicode, default_bpe  # takes seconds
    from transformers import CLIPTokenizer

    packed = Path(default_bpe())
    merges = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, rules = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    rules.write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    CLIPTokenizer.from_pretrained(folder, model_max_length=length).save_pretrained(folder)
