"""Tiny networks of timm with random weights, in folders as timm.save_for_hf writes them."""

from pathlib import Path

SIDE = 32
VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}


def write_vit(folder: Path, **facts) -> str:
    """A vision transformer for images of 32 pixels alone; ``facts`` change what it says of its pictures."""
    return _write("vit_tiny_patch16_224", folder, VIT, {"crop_pct": 1.0, **facts})


def write_resnet(folder: Path, **facts) -> str:
    """A network with batch statistics, for images of any size."""
    return _write("test_resnet", folder, {}, {"input_size": (3, SIDE, SIDE), **facts})


def _write(architecture: str, folder: Path, arguments: dict, facts: dict) -> str:
    """Returns what a configuration calls it."""
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(1)
    network = timm.create_model(architecture, num_classes=7, **arguments)
    for name, weights in network.named_parameters():
        if weights.ndim > 1 and "head" not in name:
            torch.nn.init.normal_(weights, std=2 / weights[0].numel() ** 0.5)  # else features hardly differ
    network.pretrained_cfg.update({"license": "apache-2.0", "num_classes": 7, **facts})
    save_for_hf(network, folder, model_args=arguments, safe_serialization=True)
    return f"local-dir:{folder}"
