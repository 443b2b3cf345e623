"""What passes to the processes of a job arrives there as it was."""

import json

import pandas as pd

from augbench import images
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
