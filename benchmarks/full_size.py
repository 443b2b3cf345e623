"""Stable Diffusion v1.4's exact architecture: does it fit, and how fast is it?

    python benchmarks/full_size.py            # on the CPU, 15 minutes or more; the first time it writes 5.5 GB

One fine-tuning of two steps of each kind and one image, at 512 pixels, each in a process of its own. Prints the peak
of its resident memory and fails where that is above the limit; prints a fine-tuning step against the plain loop's. On
a GPU it draws 50 steps. Weights are random.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import diffusion
import torch
from diffusion import _now, method, plain_finetuning
from random_pipelines import PARAMETERS, parameters, write_pictures
from random_pipelines import write as write_pipeline

from augbench import images
from augbench.diffusion import finetuning, latents, sampling, trainer
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.sampling_plan import batches
from augbench.study.sections.diffusion import Finetune, Generate

LIMIT = 20  # GiB of a process, as the smallest machine we mean to serve has them
SIDE = 512
KINDS = {
    "conditioning": "ft_conditioning",
    "conditioning+unet": "imagic",
    "pseudo_word": "textual_inversion",
    "pseudo_word+unet": "pseudoword_dm",
}


class _Measured(trainer.Trainer):
    """The fine-tuner, which also notes the seconds of its steps and writes a state as at SIGTERM."""

    seconds: list[float] = []

    def step(self, *arguments) -> float:
        start = _now()
        loss = super().step(*arguments)
        self.seconds.append(_now() - start)
        return loss

    def validation_loss(self, *arguments) -> float:
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / finetuning.STATE, "measured", [], {})
        return super().validation_loss(*arguments)


def write(folder: Path, work: Path) -> dict:
    """The pipeline, unless it is there, and the two pictures with their posteriors. Returns the parts' parameters."""
    if not folder.exists():
        write_pipeline(folder, "v1.4")
    images.write(work / "images.parquet", write_pictures(work / "pictures", SIDE, 2))
    return parameters(folder)


def encode(folder: Path, work: Path) -> dict:
    paths = {work / "images.parquet": work / "latents.safetensors"}
    latents.encode(folder, paths, image_size=SIDE, mirrored=False, threads=torch.get_num_threads())
    return {}


def finetune(folder: Path, work: Path, kind: str) -> dict:
    """Two steps of one image each, a state, a validation and a candidate; seconds of the second step."""
    finetuning.Trainer = _Measured
    settings = Finetune(
        batch_size=1, images_at_a_time=1, max_epochs=1, validation_images=1, threads=torch.get_num_threads()
    )
    diffusion.finetune(folder, work, images.read(work / "images.parquet"), KINDS[kind], settings)
    return {"seconds": _Measured.seconds[-1]}


def plain(folder: Path, work: Path, kind: str) -> dict:
    """Seconds of a step of the plain loop, with gradient checkpointing as well, after another one."""
    table = images.read(work / "images.parquet")
    return {"seconds": 1 / plain_finetuning(folder, table, 1, 1, kind.split("+"), True)}


def generate(folder: Path, work: Path) -> dict:
    """Seconds of an image, guided, checked and written."""
    gpu = torch.cuda.is_available()
    count, steps = (16, 50) if gpu else (1, 2)
    start = _now()
    settings = Generate(image_size=SIDE, steps=steps, threads=torch.get_num_threads())
    sampler = Sampler(folder, method("simple_prompt"), settings, safety=folder)
    loaded = _now()
    rows = [{"class": "three", "number": 0, "index": i, "prompt": "A photo of three, trey."} for i in range(count)]
    part = sampling.Work(lambda: sampler, batches(rows, 8), (0, "bench"), "base", str(time.time_ns()))
    sampling.write_shard([part], work / "shard.tar", work / "shard.parquet")
    picture = images.load(next(images.read(work / "shard.parquet").itertuples()))
    assert picture.size == (SIDE, SIDE), picture.size
    return {"seconds": (_now() - loaded) / count, "loading": loaded - start, "steps": steps}


def _alone(arguments: list[str], what: str) -> dict:
    """What a part of this script measured in a process of its own, with its peak memory (GiB). Raises SystemExit."""
    process = subprocess.run([sys.executable, __file__, *arguments, "--part", what], stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise SystemExit(f"{what} failed with exit status {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


def main(folder: Path, threads: int) -> None:
    too_much = []
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        arguments = ["--folder", str(folder), "--work", work, "--threads", str(threads)]

        def measure(what: str) -> dict:
            result = _alone(arguments, what)
            seconds = f", {result['seconds']:.1f} s" if "seconds" in result else ""
            on_gpu = f", {result['gpu']:.1f} GiB of the GPU" if result["gpu"] else ""
            print(f"  {what}: {result['peak']:.1f} GiB at most{on_gpu}{seconds}", flush=True)
            if result["peak"] > LIMIT:
                too_much.append(what)
            return result

        counts = {part: count for part, count in _alone(arguments, "write").items() if part in PARAMETERS}
        assert counts == PARAMETERS, f"not Stable Diffusion v1.4: {counts}"
        print(f"Stable Diffusion v1.4, {SIDE} pixels, batches of one, gradient checkpointing", flush=True)
        measure("encode")
        result = measure("generate")
        print(f"    {1 / result['seconds']:.3g} images/s of {result['steps']} steps", flush=True)
        for kind in KINDS:
            ours, loop = measure(f"finetune {kind}"), measure(f"plain {kind}")
            print(f"    a step is {loop['seconds'] / ours['seconds']:.2f}x as fast as the plain loop's", flush=True)
    if too_much:
        raise SystemExit(f"more than {LIMIT} GiB: {', '.join(too_much)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "augbench-v1.4"), help="pipeline")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.part:
        name, *rest = options.part.split()
        result = globals()[name](options.folder, options.work, *rest)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        gpu = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else 0
        print("\n" + json.dumps(result | {"peak": peak, "gpu": gpu}))
    else:
        main(options.folder, options.threads)
