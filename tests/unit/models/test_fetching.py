"""What is fetched of a repository on the hub, and what is refused there, without a hub."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub as hub
import looks_like
import pytest
import requests
from huggingface_hub.errors import GatedRepoError

from augbench.models import local_files
from augbench.models.backbones import Origin, origin_of, resolve

# Of the repository of Stable Diffusion v1.4, and of one whose weights are in several files.
HUB = [
    "model_index.json", "feature_extractor/preprocessor_config.json", "safety_checker/config.json",
    "safety_checker/model.safetensors", "safety_checker/model.fp16.safetensors", "safety_checker/pytorch_model.bin",
    "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors", "tokenizer/merges.txt", "tokenizer/vocab.json", "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.bin", "vae/config.json",
    "vae/diffusion_pytorch_model-00001-of-00002.safetensors", "vae/diffusion_pytorch_model.safetensors.index.json",
    "vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "sd-v1-4.ckpt", "README.md",
    "vae/diffusion_pytorch_model.safetensors.index.fp16.json", "tokenizer/spiece.model", "openvino/model.json",
]  # fmt: skip


def test_weights_are_chosen_once_and_as_safetensors():
    chosen = local_files.of_pipeline(HUB, looks_like.index(), None)
    unwanted = ("fp16", "non_ema", ".bin", ".ckpt", "openvino")
    assert sorted(chosen) == sorted(name for name in HUB if not any(part in name for part in unwanted))
    assert all(name == plain for name, plain in chosen.items())


def test_of_a_variant_nothing_else_is_chosen_and_it_gets_plain_names():
    chosen = local_files.of_pipeline(HUB, looks_like.index(), "fp16")
    weights = {name: plain for name, plain in chosen.items() if "safetensors" in name}
    assert weights == {
        "safety_checker/model.fp16.safetensors": "safety_checker/model.safetensors",
        "text_encoder/model.fp16.safetensors": "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors": "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors":
            "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
        "vae/diffusion_pytorch_model.safetensors.index.fp16.json": "vae/diffusion_pytorch_model.safetensors.index.json",
    }  # fmt: skip
    names = [
        "unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
        "unet/config.json",
    ]  # as diffusers once did
    assert local_files.of_pipeline(names, {"unet": ["diffusers", "X"]}, "fp16") == {
        names[0]: "unet/diffusion_pytorch_model-00001-of-00002.safetensors", names[1]: names[1],
    }  # fmt: skip
    only_plain = ["unet/diffusion_pytorch_model.safetensors"]
    assert list(local_files.of_pipeline(only_plain, {"unet": ["diffusers", "X"]}, "fp16")) == only_plain


def weights(path: Path, numbers: int = 4) -> None:
    head = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4 * numbers))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository as a folder, and what was downloaded of it."""
    root = tmp_path / "hub"
    for name in HUB:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
        if name.endswith(".safetensors"):
            weights(root / name)
    (root / "model_index.json").write_text(json.dumps(looks_like.index()))
    for kind in ("", "fp16."):
        part = f"diffusion_pytorch_model{'.' + kind if kind else ''}".rstrip(".") + "-00001-of-00002.safetensors"
        index = {"weight_map": {"w": part}}
        (root / f"vae/diffusion_pytorch_model.safetensors.index.{kind}json").write_text(json.dumps(index))
    facts = SimpleNamespace(sha="0123abc", gated=False, card_data={"license": "openrail++"}, root=root, fetched=[])

    def model_info(self, model, revision=None):
        facts.revision = revision
        names = [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]
        return SimpleNamespace(**vars(facts), siblings=[SimpleNamespace(rfilename=name) for name in names])

    def fetch(name, local_dir):
        facts.fetched.append(name)
        (Path(local_dir) / name).parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(root / name, Path(local_dir) / name)

    def snapshot(model, revision, local_dir, allow_patterns):
        assert revision == facts.sha
        for name in allow_patterns:
            fetch(name, local_dir)

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(hub, "hf_hub_download", lambda model, name, revision, local_dir: fetch(name, local_dir))
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(hub, "get_token", lambda: None)
    return facts


def test_a_repository_is_fetched_at_one_commit_and_in_one_variant(repository, tmp_path):
    resolve("owner/name", tmp_path / "out", revision="v2", variant="fp16")
    assert repository.revision == "v2"
    assert not any(".bin" in name or "non_ema" in name for name in repository.fetched)
    assert [name for name in repository.fetched if name.endswith(".safetensors") and "fp16" not in name] == []
    assert origin_of(tmp_path / "out") == Origin("owner/name", "0123abc", "openrail++")
    assert origin_of(tmp_path / "out").title == "owner/name@0123abc"
    index = json.loads((tmp_path / "out/vae/diffusion_pytorch_model.safetensors.index.json").read_text())
    assert index == {"weight_map": {"w": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    assert not [file for file in (tmp_path / "out").rglob("*") if "fp16" in file.name]
    local_files.check_pipeline(tmp_path / "out")


def test_a_licence_with_a_name_of_its_own_is_named(repository, tmp_path):
    repository.card_data = {"license": "other", "license_name": "flux-1-dev-non-commercial-license"}
    resolve("owner/name", tmp_path / "out")
    assert origin_of(tmp_path / "out").licence == "flux-1-dev-non-commercial-license"


def test_several_licences_are_all_named(repository, tmp_path):
    repository.card_data = {"license": ["mit", "apache-2.0"]}
    resolve("owner/name", tmp_path / "out")
    assert origin_of(tmp_path / "out").licence == "mit, apache-2.0"


def test_where_no_licence_is_named_that_of_the_family_is_presumed(repository, tmp_path):
    repository.card_data = None
    resolve("owner/name", tmp_path / "out")
    assert origin_of(tmp_path / "out").licence == "presumed creativeml-openrail-m"


def test_what_cannot_be_used_is_refused_before_its_weights_are_fetched(repository, tmp_path):
    def said() -> str:
        with pytest.raises(ValueError, match="owner/name") as told:
            resolve("owner/name", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(told.value)

    index = looks_like.index() | {"_class_name": "StableVideoDiffusionPipeline"}
    (repository.root / "model_index.json").write_text(json.dumps(index))
    assert "is a StableVideoDiffusionPipeline, which draws no pictures from prompts alone" in said()
    assert repository.fetched == ["model_index.json"]
    repository.gated = "auto"
    assert "owner/name is gated: accept its terms at https://huggingface.co/owner/name, then run `hf auth" in said()
    (repository.root / "model_index.json").unlink()
    (repository.root / "model.safetensors").write_text("")
    assert "may be a single-file checkpoint, of which diffusers makes a folder: CLASS.from_single_file" in said()


def test_terms_that_were_not_accepted_are_named(repository, tmp_path, monkeypatch):
    response = requests.Response()
    response.status_code, response.request = 403, requests.Request("GET", "https://huggingface.co").prepare()

    def refuse(*arguments, **more):
        raise GatedRepoError("403 Client Error", response=response)

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match="is gated: accept its terms at"):
        resolve("owner/name", tmp_path / "out")


def test_a_local_folder_of_one_variant_is_linked_under_plain_names(repository, tmp_path):
    for file in [*repository.root.rglob("*.safetensors"), *repository.root.rglob("*.index.json")]:
        if "fp16" not in file.name:
            file.unlink()
    (repository.root / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n# A model\n")
    with pytest.raises(ValueError, match=r"only; write `variant: fp16` beside the model's name"):
        local_files.check_pipeline(repository.root)
    local_files.check_pipeline(repository.root, variant="fp16")
    resolve(str(repository.root), tmp_path / "out", variant="fp16")
    local_files.check_pipeline(tmp_path / "out")
    assert origin_of(tmp_path / "out") == Origin(str(repository.root), None, "mine")
    assert (repository.root / "vae/diffusion_pytorch_model.safetensors.index.fp16.json").read_text().count("fp16")
