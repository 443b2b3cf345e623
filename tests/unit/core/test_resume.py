"""What the state of a killed job is known by."""

from augbench.core import resume
from augbench.study.sections.classifier import Classifier


def test_a_jobs_identity_takes_all_of_a_section():
    sections = (Classifier(), Classifier(), Classifier(crop_scale=(0.5, 1)))
    one, same, other = [resume.identity(resume.__name__, [section, 3]) for section in sections]
    assert one == same != other
