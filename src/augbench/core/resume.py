"""What lets a killed job go on: states in safe files, their identity, and the wish to stop at SIGTERM."""

import contextlib
import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from augbench.core import code_digest, tensor_file
from augbench.core.files import whole


def identity(module: str, settings: object, paths: Iterable[str | Path] = ()) -> str:
    """A digest of what a job computes from, so that nothing goes on from the state of another computation.

    ``module`` is the name of the library module that computes; its source counts, as do ``settings`` (JSON, in which
    sections of the configuration may stand as they are), torch's version and device, and size and time of the files at
    or below ``paths``.
    """
    import torch

    facts = [code_digest.digest_of_module(module), torch.__version__, torch.cuda.is_available(), settings]
    digest = hashlib.sha256(json.dumps(facts, default=_plain).encode())
    for path in map(Path, paths):  # one at a time: they may be millions
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                status = file.stat()
                digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _plain(value: object) -> object:
    """What stands for a value that is not JSON: a section's own values, by name, or a text."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def save(path: str | Path, fingerprint: str, note: Mapping, groups: Mapping[str, Mapping]) -> None:
    """Write named groups of named tensors and a JSON ``note`` into one safetensors file.

    One tensor after the other: a trained Stable Diffusion with its optimiser is 10 GB, which must not be there twice,
    nor all at once in the memory of a machine that has it on its GPU.
    """
    tensors = {f"{group}/{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
    with whole(path) as temporary:
        tensor_file.write(temporary, tensors, {"identity": fingerprint, "note": json.dumps(note)})


def load(path: str | Path, fingerprint: str, groups: Iterable[str]) -> tuple[dict, dict[str, dict]] | None:
    """The note and the groups of :func:`save`; None without a state, or when its identity is another."""
    from safetensors import safe_open

    if not Path(path).exists():
        return None
    tensors = {group: {} for group in groups}
    with safe_open(path, "pt") as file:
        if file.metadata()["identity"] != fingerprint:
            print(f"{path} is of another computation (settings, inputs, code, torch or GPU): starting anew", flush=True)
            return None
        for name in file.keys():  # noqa: SIM118
            group, key = name.split("/", 1)
            tensors[group][key] = file.get_tensor(name)
        return json.loads(file.metadata()["note"]), tensors


def optimizer_tensors(optimizer) -> dict:
    """An optimiser's buffers as tensors named ``parameter.buffer``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, buffers in state.items() for name, value in buffers.items()}


def restore_optimizer(optimizer, tensors: Mapping) -> None:
    """Take the buffers of :func:`optimizer_tensors`, each laid out in memory as its parameter: a file knows one order
    only, and fused optimisers want the same of all."""
    import torch

    parameters = [weights for group in optimizer.param_groups for weights in group["params"]]
    state = {}
    for name, value in tensors.items():
        number, buffer = name.split(".", 1)
        like = parameters[int(number)]
        if value.shape == like.shape:
            value = torch.empty_like(like, dtype=value.dtype).copy_(value)
        state.setdefault(int(number), {})[buffer] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


class Saver:
    """Says when a state is due: every so many minutes, and at once, before the job ends, after SIGTERM."""

    def __init__(self, minutes: float):
        self.seconds, self.last, self.ended = 60 * minutes, time.monotonic(), False

    def due(self) -> bool:
        return self.ended or time.monotonic() - self.last >= self.seconds

    def done(self) -> None:
        """To be called when the state is written. Raises SystemExit(143) after SIGTERM."""
        self.last = time.monotonic()
        if self.ended:
            print("ended by SIGTERM; the state is saved, the same job goes on from it", flush=True)
            raise SystemExit(128 + signal.SIGTERM)


@contextlib.contextmanager
def saver(minutes: float) -> Iterator[Saver]:
    """A :class:`Saver` that hears of SIGTERM for as long as the block lasts."""
    new_saver = Saver(minutes)

    def end(*_):
        new_saver.ended = True

    before: Callable | int | None = None
    with contextlib.suppress(ValueError):  # only the main thread may listen to signals
        before = signal.signal(signal.SIGTERM, end)
    try:
        yield new_saver
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
