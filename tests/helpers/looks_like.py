"""What the folder of Stable Diffusion has in it, as far as a plan looks at it."""

from augbench.models.local_files import CONFIGS

STEMS = {  # what holds the weights of its parts
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "safety_checker": "model",
}
DESCRIBED = {part: CONFIGS[part] for part in ("scheduler", "feature_extractor", "tokenizer")}
PARTS = [*STEMS, *DESCRIBED]
SCHEDULER = {"_class_name": "PNDMScheduler"}


def index() -> dict:
    """Its ``model_index.json``."""
    libraries = {part: "diffusers" if stem.startswith("diffusion") else "transformers" for part, stem in STEMS.items()}
    return {"_class_name": "StableDiffusionPipeline"} | {part: [libraries.get(part, "x"), "Class"] for part in PARTS}
