"""What passes to the processes of a job arrives there as it was."""

import json

import pandas as pd
import pytest

from augbench import images
from augbench.core.files import write_json, write_text
from augbench.jobs import launching
from augbench.study.methods import Method
from augbench.study.sections.classifier import Classifier


def test_arguments_pass_through_json_as_they_are(tmp_path):
    section = Classifier(model="small_cnn", crop_scale=(0.5, 1))
    method = Method(title="x", family="retrieval", start="pool", conditioning="simple_prompt")
    table = images.table([{"image_id": "a", "class": "b", "path": "c"}])
    for value in (section, method, None, {"grid": [1, 2.5]}, "text"):
        packed = json.loads(json.dumps(launching._packed("name", value, tmp_path)))
        assert launching._unpacked(packed) == value
    pd.testing.assert_frame_equal(launching._unpacked(launching._packed("name", table, tmp_path)), table)


def test_a_users_own_settings_for_accelerate_do_not_count(tmp_path, monkeypatch):
    """They name one GPU, as `accelerate config` does for a notebook; the file that a training brings along says nothing
    of it."""
    from accelerate.commands import launch
    from accelerate.commands.config import config_args

    write_text(tmp_path / "default_config.yaml", "distributed_type: 'NO'\ngpu_ids: '0'\nnum_processes: 1\n")
    for module in (launch, config_args):
        monkeypatch.setattr(module, "default_config_file", str(tmp_path / "default_config.yaml"))
    write_json(tmp_path / launching.ACCELERATE, launching.SETTINGS)
    options = launching._launcher(tmp_path, processes=2, machines=1, threads=1)[3:]
    arguments, *_ = launch._validate_launch_command(launch.launch_command_parser().parse_args([*options, "x.py"]))
    assert (arguments.num_processes, arguments.multi_gpu, arguments.gpu_ids) == (2, True, "all")
    without = [option for option in options if option not in ("--config_file", str(tmp_path / launching.ACCELERATE))]
    with pytest.raises(ValueError, match="Less than two GPU ids"):
        launch._validate_launch_command(launch.launch_command_parser().parse_args([*without, "x.py"]))
