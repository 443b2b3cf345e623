"""What the state of a killed job is known by."""

import pytest
import torch

from augbench.core import resume
from augbench.study.sections.classifier import Classifier


def test_a_jobs_identity_takes_all_of_a_section():
    sections = (Classifier(), Classifier(), Classifier(crop_scale=(0.5, 1)))
    one, same, other = [resume.identity(resume.__name__, [section, 3]) for section in sections]
    assert one == same != other


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_buffers_of_an_optimiser_lie_in_memory_as_their_parameters_do(tmp_path, kind):
    """A file knows one order only; fused optimisers refuse another than that of the weights, others are slow."""

    def trained(steps, state=None):
        weights = torch.nn.Parameter(torch.ones(4, 3, 2, 2).to(memory_format=torch.channels_last))
        bias = torch.nn.Parameter(torch.zeros(4))
        options = {"fused": True} if kind == "AdamW" else {"momentum": 0.9}
        optimizer = getattr(torch.optim, kind)([weights, bias], lr=0.1, **options)
        if state:
            weights.data.copy_(state[1]["weights"]["weights"])
            bias.data.copy_(state[1]["weights"]["bias"])
            resume.restore_optimizer(optimizer, state[1]["buffers"])
        for step in steps:
            ((weights * step).sum() + bias.sum()).square().backward()
            optimizer.step()
            optimizer.zero_grad()
        return weights, bias, optimizer

    weights, bias, optimizer = trained([1, 2])
    groups = {"weights": {"weights": weights, "bias": bias}, "buffers": resume.optimizer_tensors(optimizer)}
    resume.save(tmp_path / "state", "who", {"epoch": 1}, groups)
    state = resume.load(tmp_path / "state", "who", list(groups))
    assert state[0] == {"epoch": 1}
    resumed, _, optimizer = trained([3], state)
    for buffers in optimizer.state_dict()["state"].values():
        for value in buffers.values():
            if value.shape == weights.shape:
                assert value.stride() == weights.stride()
    assert torch.equal(resumed, trained([1, 2, 3])[0])


def test_a_state_of_another_computation_is_said_to_be(tmp_path, capsys):
    resume.save(tmp_path / "state", "who", {}, {"weights": {"a": torch.zeros(1)}})
    assert resume.load(tmp_path / "state", "another", ["weights"]) is None
    assert "is of another computation" in capsys.readouterr().out
    assert resume.load(tmp_path / "absent", "who", ["weights"]) is None
