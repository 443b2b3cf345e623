"""What a job waits for may die, fall silent or never have been there: the job ends, and says why."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from PIL import Image

from augbench import images
from augbench.core import processes

pytestmark = pytest.mark.middle

LEFT_BEHIND = [  # what launchers leave in a shell
    {"RANK": "0", "WORLD_SIZE": "4"},
    {"LOCAL_RANK": "1"},
    {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "10.255.255.1", "MASTER_PORT": "29500"},
    {"PMI_SIZE": "2", "PMI_RANK": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
    {"MV2_COMM_WORLD_SIZE": "8"},
    {"ACCELERATE_USE_DEEPSPEED": "true", "LOCAL_RANK": "0"},
    {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": "bf16"},
    {"TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "1", "ROLE_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
]


@pytest.mark.parametrize("left", LEFT_BEHIND, ids=lambda left: "+".join(left))
def test_what_other_launchers_left_is_forgotten(left, monkeypatch):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    processes.forget_launchers()
    assert not left.keys() & os.environ.keys()
    assert "PATH" in os.environ and "HOME" in os.environ


def test_the_processes_of_a_training_keep_what_their_launcher_says(monkeypatch):
    monkeypatch.setenv(processes.OURS, "2")
    monkeypatch.setenv("RANK", "1")
    processes.forget_launchers()
    assert os.environ["RANK"] == "1"


def test_a_single_process_is_alone_whatever_the_environment_says():
    left = {name: value for each in LEFT_BEHIND for name, value in each.items()}
    code = "from augbench.core import collectives; g = collectives.group(); print(g.num_processes, g.process_index)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | left, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split() == ["1", "0"], done.stderr


def test_children_of_a_library_that_fails_do_not_keep_the_job(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from augbench.core import processes\n"
        "if __name__ == '__main__':\n"
        "    with processes.ended_on_error():\n"
        "        multiprocessing.get_context('spawn').Process(target=time.sleep, args=(1000,)).start()\n"
        "        raise ValueError('inference failed')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "inference failed" in done.stderr


def test_an_error_inside_clip_retrieval_ends_the_job(tmp_path):
    """Its processes for statistics wait for the end of an inference that will not come."""
    with images.ShardWriter(tmp_path / "0.tar") as writer:
        writer.add("0", {"png": images.encode_png(Image.new("RGB", (8, 8))), "json": {}}, image="png")
    script = tmp_path / "script.py"
    arguments = f"[{str(tmp_path / '0.tar')!r}], 'hf_clip:{tmp_path / 'missing'}', {str(tmp_path / 'out')!r}"
    script.write_text(
        "from augbench.retrieval import embedding\n"
        f"if __name__ == '__main__':\n    embedding.embed({arguments}, batch_size=1, threads=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "missing" in output
    assert not (tmp_path / "out").exists()


def test_a_program_that_stands_still_is_ended_with_all_that_it_started(tmp_path):
    note = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid)); time.sleep(1000)"
    )
    with pytest.raises(TimeoutError, match="nothing happened for 3 s"):
        processes.run([sys.executable, "-c", code], environment=os.environ, progress=note.exists, limit=3)
    with contextlib.suppress(psutil.NoSuchProcess):  # where nobody reaps orphans, a zombie
        assert psutil.Process(int(note.read_text())).status() == psutil.STATUS_ZOMBIE


def test_a_program_that_goes_on_is_waited_for_and_its_end_is_told():
    code = "import time; time.sleep(2); raise SystemExit(7)"
    assert processes.run([sys.executable, "-c", code], environment=os.environ, progress=time.monotonic, limit=1) == 7
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    command = [sys.executable, "-c", code]
    assert processes.run(command, environment=os.environ, progress=lambda: 0, limit=60) == -signal.SIGKILL


class Silent(BaseHTTPRequestHandler):
    """Accepts and never answers, or answers a byte at a time."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):  # the name that http.server calls
        self.server.asked += 1
        if self.path == "/drips":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not self.server.over.wait(0.2):
                self.wfile.write(b" ")
                self.wfile.flush()
        self.server.over.wait(60)

    def log_message(self, *_):
        pass


@pytest.fixture
def silent():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads, server.over, server.asked = True, threading.Event(), 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["waits", "drips"])
def test_a_service_that_never_answers_is_asked_again_and_then_an_error(silent, path):
    from augbench.retrieval.service import Service

    url = f"http://127.0.0.1:{silent.server_port}/{path}"
    service = Service(url, "web", attempts=2, wait=0.1, timeout=1)
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match=r"failed 2 times \(no answer within 1 s\)"):
        list(service.neighbours(["a cat"], [3], 0.9))
    assert time.monotonic() - begin < 20 and silent.asked == 2


@pytest.mark.parametrize("victim", ["worker", "main"])
def test_a_killed_process_of_a_download_ends_it(silent, tmp_path, victim):
    """The worker is killed while it waits for a server, as the kernel does when memory runs out."""
    from augbench.retrieval import download
    from augbench.study.sections.retrieval import Retrieval

    silent.RequestHandlerClass.do_GET = Silent.do_POST
    limits = {"timeout": 50, "retries": 0, "max_bytes": 1000, "download_threads": 1}
    settings = Retrieval(**limits, allowed_networks=["127.0.0.1/32"])
    outcome = []

    def fetch():
        try:
            download.fetch([f"http://127.0.0.1:{silent.server_port}/waits"], tmp_path, settings)
        except RuntimeError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not silent.asked and time.monotonic() < until:
        time.sleep(0.2)
    (main,) = [each for each in psutil.Process().children() if "augbench.retrieval.download" in each.cmdline()]
    workers = [each for each in main.children() if "spawn_main" in " ".join(each.cmdline())]
    killed = {"main": [main], "worker": [each for each in workers if each.net_connections()]}[victim]
    assert len(killed) == 1
    killed[0].send_signal(signal.SIGKILL)
    thread.join(timeout=30)
    assert not thread.is_alive() and "was aborted" in outcome[0] and "run again to continue" in outcome[0]
