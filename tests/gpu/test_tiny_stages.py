"""Each stage on the tiny pipeline: what the CPU computes, within bounds; the same bytes twice; after a kill as well."""

import json
import os
import shutil
import signal

import gpu_stages
import kills
import numpy as np
import pytest
import torch
from gpu_stages import FINETUNED, STAGES, run
from safetensors.torch import load_file

from augbench.diffusion import trained_model, trainer

pytestmark = pytest.mark.slow

# Mean difference from the CPU's figures in float32, relative to their mean size: what half precision may cost.
BOUNDS = {"encode": 0.01, "classify": 0.05, "train_small_models": 0.05, "score": 0.02}
BOUNDS |= {name: 0.02 for name in STAGES if name.startswith(("finetune_", "draw_"))}


def difference(ours: dict, theirs: dict) -> float:
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[name] - theirs[name]).mean() / np.abs(theirs[name]).mean()) for name in theirs)


@pytest.mark.parametrize("name", STAGES)
def test_the_gpu_computes_what_the_cpu_does_and_the_same_bytes_twice(name, material, reference, tmp_path, digest):
    off = difference(run(name, material, tmp_path / "out"), reference(name))
    print(f"{name}: {off:.2%} off the CPU")
    assert off < BOUNDS[name]
    first = digest(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")  # into the same place again: models of transformers name it
    run(name, material, tmp_path / "out")
    assert digest(tmp_path / "out") == first


@pytest.mark.parametrize("name", FINETUNED)
def test_float16_with_loss_scaling_as_on_a_v100(name, material, reference, tmp_path, monkeypatch):
    if torch.cuda.is_available():
        monkeypatch.setattr(trainer, "mixed_precision", lambda: "fp16")
    off = difference(run(f"finetune_{name}", material, tmp_path), reference(f"finetune_{name}"))
    print(f"{name}: {off:.2%} off the CPU")
    assert off < 0.01


def test_features_are_the_cpus(material, reference, tmp_path):
    weights = reference("score") and reference.out / "classify"
    assert difference(gpu_stages.score(material, tmp_path, weights), reference("score")) < BOUNDS["score"]


def test_what_was_trained_is_drawn_with_and_two_seeds_differ(material, tmp_path):
    """The denoiser and a pseudo-word, loaded into the sampler."""
    trained = {}
    for seed in (0, 1):
        run("finetune_pseudoword_dm", material, tmp_path / str(seed), seed=seed)
        file = tmp_path / str(seed) / "finetune_pseudoword_dm" / "lr-1" / "epoch-2.safetensors"
        trained[seed] = load_file(file)
    assert not torch.equal(trained[0]["pseudo_word"], trained[1]["pseudo_word"])
    pictures = {}
    for seed, candidate in trained.items():
        out = tmp_path / f"drawn-{seed}"
        out.mkdir()
        pictures[seed] = gpu_stages.draw(material, out, "pseudoword_dm", candidate)["pixels"]
    assert np.abs(pictures[0] - pictures[1]).mean() > 0


# --- ended and resumed --------------------------------------------------------------------------------


def ended_at(count, monkeypatch):
    """Have the trainer's step number ``count`` end with SIGTERM."""
    steps, original = [], trainer.Trainer.step

    def step(*arguments, **keywords):
        steps.append(0)
        if len(steps) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **keywords)

    monkeypatch.setattr(trainer.Trainer, "step", step)


@pytest.mark.parametrize("name", FINETUNED)
def test_a_fine_tuning_that_sigterm_ends_goes_on_to_the_same_bytes(name, material, tmp_path, monkeypatch, digest):
    run(f"finetune_{name}", material, tmp_path / "straight")
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="143"):
        ended_at(4, patch)  # of six
        run(f"finetune_{name}", material, tmp_path / "ended")
    run(f"finetune_{name}", material, tmp_path / "ended")
    assert digest(tmp_path / "ended") == digest(tmp_path / "straight")


KILLED = {  # stage -> a file that is there when some of its work is done, and what it is called with
    "finetune_imagic": ("**/state.safetensors", {"save_minutes": 0}),
    "classify": ("**/state.safetensors", {"save_minutes": 0}),
    "draw_clip_prompts": ("**/.shard.tar.batches/*.tar", {"steps": 50}),
}


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_job_goes_on_to_the_same_bytes(name, material, tmp_path, digest):
    pattern, changes = KILLED[name]
    run(name, material, tmp_path / "straight", **changes)
    out = tmp_path / "killed"
    arguments = {"material": str(material.folder), "out": str(out), "stages": [name], "changes": changes}
    kills.kill_when(gpu_stages.__file__, json.dumps(arguments), lambda: any(out.glob(pattern)))
    run(name, material, out, **changes)
    assert digest(out) == digest(tmp_path / "straight")


@pytest.mark.parametrize(("before", "after"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_a_state_of_another_precision_is_not_gone_on_from(before, after, material, tmp_path, monkeypatch, digest):
    """A job that is preempted on an A100 and runs again on a V100 begins again, and ends as it would have there."""
    if not torch.cuda.is_available():
        pytest.skip("a CPU has one precision")
    monkeypatch.setattr(trainer, "mixed_precision", lambda: before)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="143"):
        ended_at(4, patch)
        run("finetune_textual_inversion", material, tmp_path / "ended")
    monkeypatch.setattr(trainer, "mixed_precision", lambda: after)
    for name in ("ended", "straight"):
        run("finetune_textual_inversion", material, tmp_path / name)
    assert digest(tmp_path / "ended") == digest(tmp_path / "straight")


# --- what half precision does -------------------------------------------------------------------------


def test_a_step_whose_gradients_overflow_is_left_out(material, tmp_path, monkeypatch, capsys):
    """Loss scaling begins far too high: the scaler lowers it, and what is trained stays finite."""
    if torch.cuda.is_available():
        monkeypatch.setattr(trainer, "mixed_precision", lambda: "fp16")
    scalers, Scaler = [], torch.amp.GradScaler

    class Scaled(Scaler):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords | {"init_scale": 2.0**30})
            scalers.append(self)

    monkeypatch.setattr(torch.amp, "GradScaler", Scaled)
    figures = run("finetune_imagic", material, tmp_path, epochs=6)
    assert all(np.isfinite(values).all() for values in figures.values())
    if torch.cuda.is_available():
        print(f"loss scale at the end: {scalers[0].get_scale()}")
        assert scalers[0].get_scale() < 2.0**30
    trained = load_file(tmp_path / "finetune_imagic" / "lr-1" / "epoch-6.safetensors")
    assert all(torch.isfinite(values).all() for values in trained.values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_loss_that_overflows_once_costs_one_step(precision, material, tmp_path, monkeypatch):
    if torch.cuda.is_available():
        monkeypatch.setattr(trainer, "mixed_precision", lambda: precision)
    passes, original = [], trained_model.TrainedModel.forward

    def forward(*arguments, **keywords):
        passes.append(0)
        return original(*arguments, **keywords) * (float("inf") if len(passes) == 3 else 1)

    monkeypatch.setattr(trained_model.TrainedModel, "forward", forward)
    figures = run("finetune_pseudoword_dm", material, tmp_path)
    assert all(np.isfinite(values).all() for values in figures.values())
    trained = load_file(tmp_path / "finetune_pseudoword_dm" / "lr-1" / "epoch-2.safetensors")
    assert all(torch.isfinite(values).all() for values in trained.values())


def test_a_decoder_that_overflows_in_half_precision_decodes_in_full(material, tmp_path):
    """The decoder's first convolution gives more than float16 holds; the next layer normalises it."""
    from safetensors.torch import save_file

    folder = tmp_path / "material"
    shutil.copytree(material.folder, folder)
    file = next((folder / "pipeline" / "vae").glob("*.safetensors"))
    weights = load_file(file)
    first = weights["decoder.conv_in.weight"]
    first *= 60_000 / first.abs().max()  # float16 ends at 65,504
    save_file(weights, file, {"format": "pt"})
    pictures = gpu_stages.draw(gpu_stages.Material(folder), tmp_path, "clip_prompts", count=4)["pixels"]
    assert all(picture.std() > 0 for picture in pictures)  # not black
