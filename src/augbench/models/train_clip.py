"""Trains a small CLIP on a captioned pool, for studies on images for which no pretrained one can be had.

The result is a transformers ``CLIPModel`` folder with CLIP's own tokenizer, so that clip-retrieval
(``hf_clip:FOLDER``) and diffusers load it like any other.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip import modeling_clip

from augbench.core import determinism, finite
from augbench.core.files import whole
from augbench.core.seeds import derive
from augbench.models.captioned_pool import CaptionedPool, best_device, normalised
from augbench.models.clip_tokenizer import BOS, EOS, write_tokenizer
from augbench.study.sections.models import ClipTraining

POSITIONS = 77  # clip-retrieval always pads texts to CLIP's length
NAMING = 3.0  # weight of the loss that has the image encoder name its caption's words


def train(
    shards: Sequence[str | Path],
    folder: str | Path,
    settings: ClipTraining,
    *,
    seed: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Train CLIP (Radford et al. 2021) on WebDataset shards and write its folder.

    Symmetric cross-entropy over images and distinct captions, beside which the image encoder also learns to name its
    caption's words (Huang et al. 2024): a small pool has few captions, often repeated, and from the contrast alone
    the images take three times as many steps. AdamW with 50 warm-up steps, cosine decay, weight decay 0.2 and
    gradient clipping at 1. Deterministic for a given seed and number of threads. The model has 77 text positions, to
    however many tokens captions are cut for training.
    """
    torch.set_num_threads(settings.threads)
    determinism.require(strict=True)
    torch.manual_seed(derive(seed, "clip", "weights"))
    with whole(folder) as temporary:
        write_tokenizer(temporary, POSITIONS)
        tokenizer = CLIPTokenizer.from_pretrained(temporary)
        model = _untrained(settings)
        pool = CaptionedPool(shards, settings.image_size)
        captions, caption_of = np.unique(pool.captions, return_inverse=True)
        tokens = tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=settings.text_tokens, return_tensors="pt"
        ).input_ids
        lengths = (tokens != EOS).sum(1) + 1
        full, tokens = _use_small_vocabulary(model, tokens)
        objective = _Objective(model, tokens, lengths, torch.from_numpy(caption_of)).to(best_device())
        order = np.random.default_rng(derive(seed, "clip", "order"))
        _optimise(objective, pool.pixels, settings, order, progress)
        finite.check_weights(model, "the trained CLIP", "use a lower `clip: {train: {learning_rate: ...}}`")
        _restore_vocabulary(model.cpu(), full)
        model.eval().save_pretrained(temporary)
        side = {"height": settings.image_size, "width": settings.image_size}
        processor = CLIPImageProcessor(
            size={"shortest_edge": settings.image_size}, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
        CLIPProcessor(processor, tokenizer).save_pretrained(temporary)


def _untrained(settings: ClipTraining) -> CLIPModel:
    sizes = {
        "hidden_size": settings.width,
        "intermediate_size": 2 * settings.width,  # CLIP has 4: twice the time for no better search
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "projection_dim": settings.projection,
    }
    text = {
        "max_position_embeddings": POSITIONS,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    }
    config = CLIPConfig(
        text_config=sizes | text,
        vision_config=sizes | {"image_size": settings.image_size, "patch_size": settings.patch_size},
        projection_dim=settings.projection,
    )
    with mock.patch.object(modeling_clip.CLIPPreTrainedModel, "_init_weights", _draw_weights):
        return CLIPModel(config)


def _draw_weights(model, module) -> None:
    """Draw the initial weights of a module of CLIP, as Radford et al. have them.

    transformers draws the same distributions, but in an order that depends on its version: a study's results would
    then depend on it too.
    """
    layers = 2 * getattr(model.config, "num_hidden_layers", 1)  # each adds twice to its input

    def draw(weights, deviation: float) -> None:
        torch.nn.init.normal_(weights, std=deviation)

    if isinstance(module, modeling_clip.CLIPTextEmbeddings):
        draw(module.token_embedding.weight, 0.02)
        draw(module.position_embedding.weight, 0.02)
    elif isinstance(module, modeling_clip.CLIPVisionEmbeddings):
        draw(module.class_embedding, module.embed_dim**-0.5)
        draw(module.patch_embedding.weight, 0.02)
        draw(module.position_embedding.weight, 0.02)
    elif isinstance(module, modeling_clip.CLIPAttention):
        for projection in (module.q_proj, module.k_proj, module.v_proj):
            draw(projection.weight, module.embed_dim**-0.5 * layers**-0.5)
        draw(module.out_proj.weight, module.embed_dim**-0.5)
    elif isinstance(module, modeling_clip.CLIPMLP):
        draw(module.fc1.weight, (2 * module.config.hidden_size) ** -0.5)
        draw(module.fc2.weight, module.config.hidden_size**-0.5 * layers**-0.5)
    elif isinstance(module, CLIPModel):
        draw(module.text_projection.weight, module.text_embed_dim**-0.5)
        draw(module.visual_projection.weight, module.vision_embed_dim**-0.5)
    elif isinstance(module, torch.nn.LayerNorm):
        torch.nn.init.ones_(module.weight)
        torch.nn.init.zeros_(module.bias)
    elif isinstance(module, torch.nn.Linear) and module.bias is not None:
        torch.nn.init.zeros_(module.bias)


class _Objective(torch.nn.Module):
    """The loss of a batch: CLIP's contrast of images and captions, and how well images name their captions' words.

    ``tokens`` (captions, length) and ``lengths`` (captions,) are of the distinct captions, ``caption_of`` (images,)
    which of them each image has; these stay on the CPU, where a batch is put together.
    """

    def __init__(self, model, tokens, lengths, caption_of):
        super().__init__()
        self.model, self.tokens, self.lengths, self.caption_of = model, tokens, lengths, caption_of
        self.word_head = torch.nn.Linear(model.config.vision_config.hidden_size, int(tokens.max()) + 1)

    def forward(self, pixels, batch):
        model, device = self.model, self.model.device
        distinct, own = torch.unique(self.caption_of[batch], return_inverse=True)
        tokens, own = self.tokens[distinct].to(device), own.to(device)
        seen = model.vision_model(normalised(pixels.to(device))).pooler_output
        pictures = normalize(model.visual_projection(seen))
        texts = normalize(model.get_text_features(tokens[:, : self.lengths[distinct].max()]).pooler_output)
        loss = _contrast(model.logit_scale.exp() * pictures @ texts.T, own)
        words = seen.new_zeros(len(distinct), self.word_head.out_features).scatter_(1, tokens, 1.0)
        naming = binary_cross_entropy_with_logits(self.word_head(seen), words[own], reduction="none")
        return loss + NAMING * naming.sum(1).mean()


def _optimise(objective: _Objective, pixels, settings: ClipTraining, order, progress: Callable) -> None:
    model = objective.model
    trainable = [*model.parameters(), *objective.word_head.parameters()]
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=0.2, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1, step / settings.steps))),
    )
    model.train()
    mean_loss = None
    for step in range(settings.steps):
        size = min(settings.batch_size, len(pixels))
        batch = torch.from_numpy(order.choice(len(pixels), size, replace=False))
        loss = objective(pixels[batch], batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        latest = loss.item()
        mean_loss = latest if mean_loss is None else 0.98 * mean_loss + 0.02 * latest
        progress(step + 1, settings.steps, f"loss {mean_loss:.3f}")


def _contrast(logits, own):
    """CLIP's loss where images may share a caption.

    ``logits`` are scaled similarities, float32 (images, distinct captions); ``own`` the column of each image's caption,
    int64 (images,). Captions look for any of their images.
    """
    wanted = torch.zeros_like(logits).scatter_(1, own[:, None], 1.0).T
    return (cross_entropy(logits, own) + cross_entropy(logits.T, wanted / wanted.sum(1, keepdim=True))) / 2


def _use_small_vocabulary(model, tokens):
    """Let the text model train on the few tokens that occur: the full table would cost more than the rest.

    Returns (rows of the full table that are in use, the full table) and the renumbered tokens.
    """
    rows, tokens = torch.unique(tokens, return_inverse=True)
    embeddings = model.text_model.embeddings
    full = embeddings.token_embedding
    embeddings.token_embedding = torch.nn.Embedding.from_pretrained(full.weight[rows].clone(), freeze=False)
    model.text_model.eos_token_id = len(rows) - 1  # end of text is the highest number in both
    return (rows, full), tokens


def _restore_vocabulary(model, kept) -> None:
    rows, full = kept
    embeddings = model.text_model.embeddings
    with torch.no_grad():
        full.weight[rows] = embeddings.token_embedding.weight
    embeddings.token_embedding = full
    model.text_model.eos_token_id = EOS
