"""A small copy detector, trained here without labels in the way of SSCD: a second detector to compare with hashes.

Pizzi et al. (2022), "A self-supervised descriptor for image copy detection": two altered copies of an image are brought
together and all other images of the batch pushed apart (InfoNCE), and nearest neighbours are spread (KoLeo).
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from augbench import images

SIDE, TEMPERATURE, ENTROPY_WEIGHT = 32, 0.05, 1.0


class Network(torch.nn.Module):
    """float32 (n, 3, any side) -> (n, 128), of length 1."""

    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for wider, stride in ((32, 2), (64, 1), (128, 2), (128, 2)):
            layers += [torch.nn.Conv2d(width, wider, 3, stride, 1), torch.nn.BatchNorm2d(wider), torch.nn.ReLU()]
            width = wider
        self.layers, self.out = torch.nn.Sequential(*layers), torch.nn.Linear(4 * width, 128)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = F.interpolate(pixels, [32, 32], mode="bilinear", antialias=True)
        pooled = F.adaptive_avg_pool2d(self.layers(pixels).clamp(min=1e-6) ** 3, 2) ** (1 / 3)  # GeM, by quarters
        return F.normalize(self.out(pooled.flatten(1)), dim=1)


def altered(pixels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Copies that are cut, shifted, stretched, mirrored at times, recoloured and noisy; float32 (n, 3, side, side)."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=random)

    count = len(pixels)
    scale = uniform(0.7, 1.05, count, 2)
    shift = uniform(-0.2, 0.2, count, 2)
    mirror = torch.where(torch.rand(count, generator=random) < 0.2, -1.0, 1.0)
    turn = torch.zeros(count, 2, 3)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = scale[:, 0] * mirror, scale[:, 1], shift
    grid = F.affine_grid(turn, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    gain, offset = uniform(0.6, 1.4, count, 3, 1, 1), uniform(-0.3, 0.3, count, 3, 1, 1)
    gain, offset = (
        0.3 * part + 0.7 * part.mean(1, keepdim=True) for part in (gain, offset)
    )  # mostly all colours alike
    return (
        moved * gain
        + offset
        + 0.1 * torch.rand(count, 1, 1, 1, generator=random) * torch.randn(moved.shape, generator=random)
    )


def train(table: pd.DataFrame, path: Path, steps: int = 800, batch: int = 128) -> None:
    """Train on a table's images and write a TorchScript model, as ``copy_detectors.scripted`` takes it."""
    from augbench.models.copy_detectors import DEVIATION, MEAN

    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    pixels = np.stack([np.asarray(images.load(row).resize((SIDE, SIDE))) for row in table.itertuples()])
    mean, deviation = (torch.tensor(part).view(1, 3, 1, 1) for part in (MEAN, DEVIATION))
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        chunk = torch.from_numpy(pixels[torch.randperm(len(pixels), generator=random)[:batch].numpy()])
        chunk = (chunk.permute(0, 3, 1, 2).float() / 255 - mean) / deviation
        vectors = model(torch.cat([altered(chunk, random) for _ in range(2)]))
        like = vectors @ vectors.T
        like.fill_diagonal_(-1.0)
        partner = torch.arange(2 * batch).roll(batch)
        other = like.detach().scatter(1, partner[:, None], -1.0).argmax(1)
        entropy_loss = -(vectors - vectors[other]).norm(dim=1).clamp(min=1e-6).log().mean()
        loss = F.cross_entropy(like / TEMPERATURE, partner) + ENTROPY_WEIGHT * entropy_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if not (step + 1) % 100:
            print(f"  copy detector, step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    torch.jit.script(model.eval()).save(str(path))
