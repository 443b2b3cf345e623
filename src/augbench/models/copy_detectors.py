"""Copy detectors: models that give copies of an image vectors close to its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, as these models are trained


def scripted(path: str | Path, side: int) -> Callable[[list], np.ndarray]:
    """A TorchScript copy-detection model, e.g. SSCD, as a function of a list of RGB ``PIL.Image``.

    The model takes float32 (n, 3, side, side), normalised by ImageNet's colours, and returns (n, width); the function
    returns these at length 1. TorchScript
    is a program in a language of its own, with weights that are read without Python's pickle: loading it imports and
    calls nothing of Python, but the program runs, so take it from whom you trust. Raises ValueError when ``path`` is
    none, a pickled Python model above all, which is not loaded.
    """
    import torch
    from torchvision.transforms import v2

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        said = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is not a TorchScript model (torch.jit.save makes one): {said}") from None
    prepare = v2.Compose(
        [
            v2.Resize((side, side), antialias=True),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, DEVIATION),
        ]
    )

    def embed(pictures: list) -> np.ndarray:
        with torch.inference_mode():
            vectors = model(torch.stack([prepare(picture) for picture in pictures]).to(device)).float()
            return torch.nn.functional.normalize(vectors).cpu().numpy()

    return embed
