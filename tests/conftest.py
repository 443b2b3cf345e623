"""Three tiers of tests, and what belongs to which:

- **quick** (`make quick`): a test without a mark. It needs no trained model and starts no process of Python.
- **middle** (`make test` runs it too): a test marked ``middle``, which takes seconds or starts a process, or one that
  uses the tiny world or a clone.
- **slow** (`make test-all` runs it too): a test marked ``slow``.

`tests/study` belongs to none: it compares the results of `make report` with what was planted (`make check`); nor does
`tests/gpu` (`make test-gpu`). No other test sees a GPU: in half precision results are not those that are expected.
"""

import functools
import multiprocessing.process
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_world
from clones import Clone, kept_small_study

# Tests run side by side, a core each; with more threads they would wait for each other. What tests start inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A power cut is not tested, and each file that appears whole waits some milliseconds for the disk. Processes that tests
# start do wait.
os.fsync = lambda file: None

GPU_TESTS = Path(__file__).parent / "gpu"


def pytest_configure(config):
    if not all(Path(place.split("::")[0]).resolve().is_relative_to(GPU_TESTS) for place in config.args):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # also for what tests start


MIDDLE = {
    "world",
    "clone",
    "small_study",
    "hostile",
}  # fixtures that need a trained model or a process; others are made from these


# What takes longest goes first, so that no core is idle at the end; of the others that want the small study, which the
# test of determinism builds, none waits for it.
FIRST = {"slow": ("cluster", "workflow")}
USUALLY_FIRST = ("test_determinism.py", "retrieval", "diffusion", "workflow", "report")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if MIDDLE & set(item.fixturenames):
            item.add_marker(pytest.mark.middle)
    first = FIRST.get(config.option.markexpr, USUALLY_FIRST)
    items.sort(key=lambda item: next((k for k, name in enumerate(first) if name in item.path.parts), len(first)))


STARTED = []  # what the running test has started


def pytest_runtest_setup(item):
    STARTED.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if STARTED and not any(item.get_closest_marker(name) for name in ("middle", "slow")):
        pytest.fail(f"a test that starts a process is marked middle or slow; this one started {STARTED}", pytrace=False)
    return result


def _note_start(event, arguments):
    if event == "subprocess.Popen" and arguments[0] == sys.executable:
        STARTED.append(arguments[1])


def _noted(start):
    def noted(process):
        STARTED.append(process.name)
        return start(process)

    return noted


sys.addaudithook(_note_start)
multiprocessing.process.BaseProcess.start = _noted(multiprocessing.process.BaseProcess.start)


@pytest.fixture(scope="session")
def world(pytestconfig) -> Iterator[tiny_world.World]:
    """The tiny world. Each of its tokenizers, to which no test adds, is read once: that takes half a second, for 49,000
    words."""
    from transformers import PreTrainedTokenizerBase

    read = PreTrainedTokenizerBase.from_pretrained.__func__
    kept = functools.cache(read)

    tiny = tiny_world.kept_in(Path(pytestconfig.cache.mkdir("world")))

    def from_pretrained(cls, folder, **options):
        is_tiny = not options and Path(folder).is_relative_to(tiny.folder)
        return kept(cls, str(folder)) if is_tiny else read(cls, folder, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedTokenizerBase, "from_pretrained", classmethod(from_pretrained))
        yield tiny


@pytest.fixture(scope="session")
def small_study(pytestconfig) -> Clone:
    return kept_small_study(Path(pytestconfig.cache.mkdir("small_study")))
