"""How long the jobs' imports take, in several environments, in one run.

`python benchmarks/imports.py [PYTHON...]` starts each of the interpreters (else the running one) anew for each list of
imports below, several times by turns, and prints the least processor time of a start in seconds, which depends little
on what else runs, its ratio to the first interpreter's, and which heavy packages came along. The first round, which
reads from the disk, does not count.
"""

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

ROUNDS = 3
SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
HEAVY = ["torch._dynamo", "torchvision", "diffusers", "transformers", "sklearn", "scipy.stats", "pandas", "pyarrow"]
HEAVY += ["sentence_transformers", "albumentations", "wandb", "cv2", "matplotlib"]
# What the jobs import in the course of their work.
JOBS = {
    "torch": "import torch",
    "classify": "import torch, torchvision",
    "train_clip": "from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer",
    "train_unet": "from diffusers import StableDiffusionPipeline, UNet2DConditionModel",
    "embed_pool": "from clip_retrieval.clip_inference.main import main",
    "retrieve": "from all_clip import load_clip; from clip_retrieval.clip_back import KnnService",
    "index_pool": "from autofaiss import build_index",
    "download_pool": "import img2dataset",
}


def heads() -> dict[str, str]:
    """The imports of each script of the workflow, without those inside of functions."""
    lines = {}
    for script in sorted(SCRIPTS.glob("*.py")):
        nodes = ast.parse(script.read_text()).body
        imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        lines[script.name] = "; ".join(imports)
    return lines


def measure(python: str, code: str) -> tuple[float, list[str]]:
    """Processor seconds of a process that imports, and the heavy packages that it then has."""
    ask = f"{code}\nimport json, sys; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    if result.returncode:
        return float("nan"), [result.stderr.strip().splitlines()[-1]]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(result.stdout.splitlines()[-1])


def main(pythons: list[str]) -> None:
    for name, code in (JOBS | heads()).items():
        seconds = {python: [] for python in pythons}
        came = {}
        for _ in range(ROUNDS + 1):
            for python in pythons:
                taken, came[python] = measure(python, code)
                seconds[python].append(taken)
        best = {python: min(taken[1:]) for python, taken in seconds.items()}
        for python, taken in best.items():
            ratio = taken / best[pythons[0]]
            print(f"{name:22} {python:40} {taken:6.2f} s  x {ratio:.2f}  {' '.join(came[python])}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [sys.executable])
