"""The orchestrator's memory does not grow with the number of images in a dataset."""

import time
from pathlib import Path

from support.limits import PATIENCE
from support.orchestrator import Orchestrator, tiny_items

from cellsparse_proto.v1 import dataset_pb2

FEW, MANY = 20, 2000


def peak_mib(pid: int) -> float:
    """The largest resident memory a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_two_thousand_images_take_no_more_memory_than_twenty(tmp_path):
    # Nobody answers at port 1: the run waits, but its specification lists every item.
    settings = {"CELLSPARSE_LAUNCHER": "static", "CELLSPARSE_TRAINERS": "unet=127.0.0.1:1"}
    with Orchestrator(tmp_path / "home", **settings) as orchestrator:
        orchestrator.train(orchestrator.upload(tiny_items(FEW), name="few").id)
        few = peak_mib(orchestrator.pid)
        begin = time.monotonic()
        dataset = orchestrator.upload(tiny_items(MANY), name="many")
        seconds = time.monotonic() - begin
        page = {"page_size": 1000}
        request = dataset_pb2.ListDatasetItemsRequest(dataset_id=dataset.id, page=page)
        assert len(orchestrator.datasets.ListDatasetItems(request, timeout=PATIENCE).items) == 1000
        orchestrator.train(dataset.id)
        many = peak_mib(orchestrator.pid)
    assert dataset.items == MANY
    print(f"{few:.0f} MiB with {FEW} images, {many:.0f} MiB with {MANY}, which took {seconds:.1f} s")
    assert many - few < 100
