"""Retrieval's downloads and their judging: side by side against one after the other.

`python benchmarks/judging.py` serves pictures over HTTP, each some time after it was asked for, as the web does, and
judges them by a network of random weights. Prints the seconds of both ways in one run, and that the verdicts agree.
"""

import argparse
import io
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch
from PIL import Image

from augbench.core import processes
from augbench.retrieval import download, inspection
from augbench.retrieval.inspection import Inspection
from augbench.study.sections.retrieval import Retrieval

SETTINGS = Retrieval(allowed_networks=["127.0.0.0/8"], download_threads=4)
LISTS = 3


class Network(torch.nn.Module):
    """Some layers of a transformer, which take a core so many milliseconds for a picture."""

    def __init__(self, width: int = 512, layers: int = 3):
        super().__init__()
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(width, 8, batch_first=True)
        self.patches = torch.nn.Linear(14 * 14 * 3, width)
        self.layers = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()

    def unsafe(self, pictures: list) -> list[bool]:
        pixels = np.stack([np.asarray(picture.resize((224, 224)), np.float32) for picture in pictures]) / 255
        patches = torch.from_numpy(pixels).unfold(1, 14, 14).unfold(2, 14, 14).flatten(3).flatten(1, 2)
        with torch.inference_mode():
            return (self.layers(self.patches(patches)).mean((1, 2)) > 0).tolist()


def serve(seconds: float) -> ThreadingHTTPServer:
    buffer = io.BytesIO()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (300, 400, 3), dtype=np.uint8)).save(buffer, "JPEG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(seconds)
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(buffer.getvalue())))
            self.end_headers()
            self.wfile.write(buffer.getvalue())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def judge(urls: list[str], way: Callable, network: Network) -> tuple[float, list[str]]:
    """Seconds, and what became of the pictures."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        tables = download.fetch_in_turn(urls, work, SETTINGS)
        renamed = (table.rename(columns={"url": "address"}) for table in tables)
        rows = Inspection(network, SETTINGS)(way(renamed), len(urls), lambda *_: None)
    return time.perf_counter() - start, [row["fate"] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=0.3, help="until the server answers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Lists are many times what is judged at a time, as they are at their real length.
    download.LIST_SIZE, inspection.KEPT = options.images // LISTS, inspection.AT_A_TIME
    network, server = Network(), serve(options.seconds)
    urls = [f"http://127.0.0.1:{server.server_port}/{i}.jpg" for i in range(options.images)]
    one_by_one, first = judge(urls, list, network)
    side_by_side, second = judge(urls, processes.ahead, network)
    print(f"{options.images} pictures in {LISTS} lists: {one_by_one:.0f} s one after the other")
    print(f"{side_by_side:.0f} s side by side, {one_by_one / side_by_side:.2f}x; equal verdicts: {first == second}")


if __name__ == "__main__":
    main()
