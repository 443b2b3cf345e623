"""The registry of families against diffusers' own classes, and what each refuses."""

import inspect

import pytest
import yaml

from augbench.models import families
from augbench.models.families import FAMILIES
from augbench.study.methods import Method
from augbench.study.parts import PARTS
from augbench.study.sections.diffusion import Generate
from augbench.study.starts import STARTS

ROWS = yaml.safe_load(open("config/methods.yaml"))["methods"]
CLASSES = [(family, name) for family in FAMILIES for name in family.pipelines]


@pytest.mark.parametrize(("family", "name"), CLASSES, ids=[name for _, name in CLASSES])
def test_each_class_is_one_of_diffusers_whose_call_is_as_the_family_says(family, name):
    import diffusers

    known = inspect.signature(getattr(diffusers, name).__call__).parameters
    required = {"prompt", "generator", "num_inference_steps", "height", "width", "output_type", family.guidance_name}
    assert required <= set(known)
    assert not family.takes_negative_prompt or "negative_prompt" in known
    if family.is_flow is not None:  # of these the defaults are known
        assert known["num_inference_steps"].default == family.steps
        assert known[family.guidance_name].default == family.guidance


def test_each_class_is_of_one_family():
    names = [name for _, name in CLASSES]
    assert len(set(names)) == len(names)
    assert families.of_class("FluxPipeline", "x").name == "FLUX.1"
    with pytest.raises(ValueError, match="x is a StableCascadeDecoderPipeline, which draws no pictures from"):
        families.of_class("StableCascadeDecoderPipeline", "x")


def test_what_settings_leave_open_is_left_to_the_pipeline():
    sdxl, flux, qwen = (
        families.of_class(name, "") for name in ("StableDiffusionXLPipeline", "FluxPipeline", "QwenImagePipeline")
    )
    assert sdxl.call(Generate(), 2) == {}
    settings = Generate(image_size=768, steps=9, guidance=2.5, negative_prompt="blurred")
    assert sdxl.call(settings, 2) == {
        "height": 768, "width": 768, "num_inference_steps": 9, "guidance_scale": 2.5,
        "negative_prompt": ["blurred"] * 2,
    }  # fmt: skip
    assert qwen.call(Generate(guidance=3), 1) == {"true_cfg_scale": 3, "negative_prompt": [" "]}
    with pytest.raises(ValueError, match=r"FLUX\.1 has no negative prompt; leave `negative_prompt` out"):
        flux.call(settings, 1)


def test_defaults_are_those_of_the_model_in_the_folder(tmp_path):
    sd = families.DEFAULT
    assert sd.with_defaults(Generate()).model_dump(include={"steps", "guidance", "image_size"}) == {
        "steps": 50, "guidance": 7.5, "image_size": 512,
    }  # fmt: skip
    for part, config in (("unet", '{"sample_size": 96}'), ("vae", '{"block_out_channels": [1, 2, 3, 4]}')):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(config)
    assert sd.with_defaults(Generate(steps=9), tmp_path).image_size == 768  # Stable Diffusion 2.1


def test_methods_that_a_family_cannot_have_are_named():
    sdxl, simple = families.of_class("StableDiffusionXLPipeline", ""), Method(**ROWS["simple_prompt"])
    families.check_method(sdxl, simple, "m")
    varied = simple.model_copy(update={"start": STARTS["image"]})
    trained = simple.model_copy(update={"trained": [PARTS["unet"]]})
    for method in (varied, trained):
        families.check_method(families.DEFAULT, method, "m")
    with pytest.raises(
        ValueError, match=r"m begins otherwise than from noise \(`start: image`\), which is not possible"
    ):
        families.check_method(sdxl, varied, "m")
    with pytest.raises(ValueError, match=r"m fine-tunes unet, .* another family \(Stable Diffusion 1\.x and 2\.x\)"):
        families.check_method(sdxl, trained, "m")


@pytest.mark.parametrize(
    ("scheduler", "is_flow"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, True),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}, True),
        ({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}, True),
        ({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "epsilon"}, False),
        ({"_class_name": "PNDMScheduler"}, False),
    ],
)
def test_a_scheduler_of_another_objective_is_refused(scheduler, is_flow):
    sd, flux = families.DEFAULT, families.of_class("FluxPipeline", "")
    right, wrong = (flux, sd) if is_flow else (sd, flux)
    families.check_objective(right, scheduler, "folder")
    with pytest.raises(ValueError, match=f"folder has the scheduler {scheduler['_class_name']} for"):
        families.check_objective(wrong, scheduler, "folder")
