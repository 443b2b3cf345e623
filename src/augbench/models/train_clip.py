"""Trains a small CLIP on a captioned pool, for studies on images for which no pretrained one can be had.

The result is a transformers ``CLIPModel`` folder with CLIP's own tokenizer, so that clip-retrieval
(``hf_clip:FOLDER``) and diffusers load it like any other.
"""

import gzip
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from augbench.core import finite
from augbench.core.files import whole
from augbench.core.seeds import derive
from augbench.models.captioned_pool import CaptionedPool, normalised

POSITIONS = 77  # clip-retrieval always pads texts to CLIP's length
BOS, EOS = 49406, 49407
NAMING = 3.0  # weight of the loss that has the image encoder name its caption's words


def write_tokenizer(folder: str | Path, length: int) -> None:
    """Write CLIP's byte-pair tokenizer (49,408 tokens), made from the merges that open_clip ships.

    ``length`` is the number of tokens that texts are padded or cut to.
    """
    from open_clip.tokenizer import bytes_to_unicode, default_bpe
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


def train(
    shards: Sequence[str | Path],
    folder: str | Path,
    *,
    seed: int,
    image_size: int,
    patch_size: int,
    width: int,
    layers: int,
    heads: int,
    projection: int,
    text_tokens: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    threads: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Train CLIP (Radford et al. 2021) on WebDataset shards and write its folder.

    Symmetric cross-entropy over images and distinct captions, beside which the image encoder also learns to name its
    caption's words (Huang et al. 2024): a small pool has few captions, often repeated, and from the contrast alone
    the images take three times as many steps. AdamW with 50 warm-up steps, cosine decay, weight decay 0.2 and
    gradient clipping at 1. Deterministic for a given seed and number of threads.

    Parameters
    ----------
    image_size, patch_size : pixels
    width, layers, heads : of both the image and the text transformer; projection : embedding dimension
    text_tokens : captions are cut to so many tokens for training (the model has 77 positions)
    learning_rate : peak, per step
    """
    import numpy as np
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, normalize
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.set_num_threads(threads)
    torch.manual_seed(derive(seed, "clip", "weights"))
    with whole(folder) as temporary:
        write_tokenizer(temporary, POSITIONS)
        tokenizer = CLIPTokenizer.from_pretrained(temporary)
        sizes = {
            "hidden_size": width,
            "intermediate_size": 2 * width,  # CLIP has 4: twice the time for no better search
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "projection_dim": projection,
        }
        text = {
            "max_position_embeddings": POSITIONS,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": EOS,
        }
        model = CLIPModel(
            CLIPConfig(
                text_config=sizes | text,
                vision_config=sizes | {"image_size": image_size, "patch_size": patch_size},
                projection_dim=projection,
            )
        )
        pool = CaptionedPool(shards, image_size)
        captions, caption_of = np.unique(pool.captions, return_inverse=True)
        caption_of = torch.from_numpy(caption_of)
        tokens = tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=text_tokens, return_tensors="pt"
        ).input_ids
        lengths = (tokens != EOS).sum(1) + 1
        pixels = pool.pixels
        full, tokens = _use_small_vocabulary(model, tokens)
        word_head = torch.nn.Linear(width, int(tokens.max()) + 1)

        trainable = [*model.parameters(), *word_head.parameters()]
        optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.2, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))),
        )
        model.train()
        order = np.random.default_rng(derive(seed, "clip", "order"))
        mean_loss = None
        for step in range(steps):
            batch = torch.from_numpy(order.choice(len(pixels), min(batch_size, len(pixels)), replace=False))
            distinct, own = torch.unique(caption_of[batch], return_inverse=True)
            seen = model.vision_model(normalised(pixels[batch])).pooler_output
            pictures = normalize(model.visual_projection(seen))
            texts = normalize(model.get_text_features(tokens[distinct, : lengths[distinct].max()]).pooler_output)
            loss = _contrast(model.logit_scale.exp() * pictures @ texts.T, own)
            words = torch.zeros(len(distinct), word_head.out_features).scatter_(1, tokens[distinct], 1.0)
            naming = binary_cross_entropy_with_logits(word_head(seen), words[own], reduction="none")
            loss = loss + NAMING * naming.sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))
            mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
            progress(step + 1, steps, f"loss {mean_loss:.3f}")
        finite.check_weights(model, "the trained CLIP", "use a lower `clip: {train: {learning_rate: ...}}`")
        _restore_vocabulary(model, full)
        model.eval().save_pretrained(temporary)
        side = {"height": image_size, "width": image_size}
        processor = CLIPImageProcessor(
            size={"shortest_edge": image_size}, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
        CLIPProcessor(processor, tokenizer).save_pretrained(temporary)


def _contrast(logits, own):
    """CLIP's loss where images may share a caption.

    ``logits`` are scaled similarities, float32 (images, distinct captions); ``own`` the column of each image's caption,
    int64 (images,). Captions look for any of their images.
    """
    import torch
    from torch.nn.functional import cross_entropy

    wanted = torch.zeros_like(logits).scatter_(1, own[:, None], 1.0).T
    return (cross_entropy(logits, own) + cross_entropy(logits.T, wanted / wanted.sum(1, keepdim=True))) / 2


def _use_small_vocabulary(model, tokens):
    """Let the text model train on the few tokens that occur: the full table would cost more than the rest.

    Returns (rows of the full table that are in use, the full table) and the renumbered tokens.
    """
    import torch

    rows, tokens = torch.unique(tokens, return_inverse=True)
    embeddings = model.text_model.embeddings
    full = embeddings.token_embedding
    embeddings.token_embedding = torch.nn.Embedding.from_pretrained(full.weight[rows].clone(), freeze=False)
    model.text_model.eos_token_id = len(rows) - 1  # end of text is the highest number in both
    return (rows, full), tokens


def _restore_vocabulary(model, kept) -> None:
    import torch

    rows, full = kept
    embeddings = model.text_model.embeddings
    with torch.no_grad():
        full.weight[rows] = embeddings.token_embedding.weight
    embeddings.token_embedding = full
    model.text_model.eos_token_id = EOS
