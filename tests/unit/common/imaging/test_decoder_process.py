"""Files with codecs are decoded in processes of their own, whose death harms nobody."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image as Pillow
from support import broken_decoder
from support.limits import PATIENCE

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging import decoder_process, decoding_budget
from cellsparse_common.imaging.decoder_process import MOST_IMAGES, Decoder
from cellsparse_common.imaging.decoder_wire import receive_line, send_line
from cellsparse_common.imaging.file_content import map_content
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.label_formats import LabelOutput, encode

TESTS = Path(__file__).resolve().parents[3]
STACK = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)


@pytest.fixture
def decoder():
    made = Decoder()
    decoder_process.decode_apart(made)
    yield made
    end(made)


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = Decoder(["-m", "support.broken_decoder"])
    decoder_process.decode_apart(made)
    yield made
    end(made)


def end(decoder):
    decoder_process._decoder = None
    decoder.close()


def image(first: int, size: int = 16) -> bytes:
    array = np.full((size, size), 9, np.uint8)
    array[0, 0] = first
    return encode_tiff(array)


def decode(data: bytes, **options):
    return decode_image(data, max_pixels=2**24, **options)


def children(decoder) -> list[psutil.Process]:
    return psutil.Process(decoder._process.pid).children() if decoder._process else []


def jpeg() -> bytes:
    file = BytesIO()
    Pillow.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(file, "JPEG")
    return file.getvalue()


FILES = {
    "stack": (encode_tiff(STACK, stack=True, spacing=(2.0, 0.5, 0.5)), {"stacks": True}),
    "a plane of a stack": (encode_tiff(STACK, stack=True), {"z": 1}),
    "colours": (encode_tiff(np.dstack([STACK[0]] * 3)), {}),
    "floats": (encode_tiff(STACK[0] / 7), {}),
    "labels": (encode_tiff(STACK[0].astype(np.int32) - 1), {"labels": True}),
    "jpeg": (jpeg(), {}),
    "zarr": (encode("ome-zarr", LabelOutput(label=STACK.astype(np.int32), spacing=(2, 1, 1))), {"stacks": True}),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_comes_out_as_in_this_process(decoder, name):
    data, options = FILES[name]
    here = decode(data, trusted=True, **options)
    assert decoder._process is None
    apart = decode(data, **options)
    assert decoder._process is not None
    np.testing.assert_array_equal(apart.array, here.array)
    assert (apart.array.dtype, apart.axes, apart.spacing) == (here.array.dtype, here.axes, here.spacing)
    assert apart.channels == here.channels


def test_png_and_plain_tiff_files_need_no_process(decoder):
    import tifffile

    plain, picture = BytesIO(), BytesIO()
    tifffile.imwrite(plain, STACK[0])
    Pillow.fromarray(STACK[0].astype(np.uint8)).save(picture, "PNG")
    assert decode(plain.getvalue()).array.shape == decode(picture.getvalue()).array.shape == (20, 30)
    assert decoder._process is None


@pytest.mark.parametrize(
    ("data", "options", "kind", "sentence"),
    [
        (FILES["stack"][0][:200], {}, InvalidArgument, "truncated"),
        (FILES["stack"][0], {}, InvalidArgument, "3D stack of 3 planes"),
        (encode_tiff(np.full((4, 4), np.nan)), {}, InvalidArgument, "finite numbers only"),
        (encode_tiff(np.zeros((5000, 5000), np.uint8)), {}, ResourceExhausted, "25,000,000"),
        (jpeg()[:300], {}, InvalidArgument, "JPEG"),
    ],
)
def test_a_refusal_is_the_same_sentence_as_in_this_process(decoder, data, options, kind, sentence):
    said = []
    for trusted in (True, False):
        with pytest.raises(kind, match=sentence) as caught:
            decode(data, trusted=trusted, **options)
        said.append((caught.value.message, [tuple(each) for each in caught.value.violations]))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("what", "kind", "sentence"),
    [
        (broken_decoder.CRASH, InvalidArgument, "its decoder crashed"),
        (broken_decoder.HANG, ResourceExhausted, "takes too long"),
        (broken_decoder.HOARD, ResourceExhausted, "more memory"),
        (broken_decoder.WIDEN, InvalidArgument, "nonsense"),
    ],
)
def test_a_broken_codec_is_one_sentence_and_the_next_image_is_fine(broken, monkeypatch, what, kind, sentence):
    with monkeypatch.context() as patch:
        if what == broken_decoder.HANG:
            patch.setattr(broken, "_seconds", 1.0)
        with pytest.raises(kind, match=f"The photo .*{sentence}"):
            decode(image(what), field="photo")
    assert decode(image(broken_decoder.SOUND)).array.shape == (16, 16)
    assert decoding_budget.BUDGET.taken == 0
    assert len(children(broken)) == 1


def test_a_process_that_was_killed_is_started_again(broken):
    decode(image(broken_decoder.SOUND))
    first = broken._process.pid
    with pytest.raises(InvalidArgument, match="its decoder crashed"):
        decode(image(broken_decoder.DIE))
    assert decode(image(broken_decoder.SOUND)).array.shape == (16, 16)
    assert broken._process.pid != first


def test_who_sends_a_byte_now_and_then_is_not_waited_for_forever():
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.01):
            theirs.send(b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(TimeoutError):
            receive_line(ours, time.monotonic() + 0.3)
    finally:
        stop.set()
        sender.join()
        ours.close()
        theirs.close()


def test_only_the_server_ends_it(decoder):
    decode(image(0))
    for each in (decoder._process.pid, *[child.pid for child in children(decoder)]):
        os.kill(each, signal.SIGTERM)
    first = decoder._process.pid
    assert decode(image(0)).array.shape == (16, 16)
    assert decoder._process.pid == first


def test_a_small_image_gets_a_kept_child_until_that_has_decoded_many(decoder):
    data, pids = image(0), set()
    for _ in range(MOST_IMAGES + 1):
        decode(data)
        pids |= {child.pid for child in children(decoder)}
    assert 1 <= len(pids) <= 2


def test_many_at_once(decoder):
    images = {first: image(first, 64) for first in range(12)}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda first: int(decode(images[first]).array[0, 0]), images))
    assert found == list(images)
    assert len(decoder._idle) <= decoder_process.MOST_IDLE


def test_a_file_on_disk_is_not_sent(decoder, tmp_path, monkeypatch):
    sent = []

    def note(line, message):
        sent.append(message)
        send_line(line, message)

    monkeypatch.setattr(decoder_process, "send_line", note)
    path = tmp_path / "image"
    path.write_bytes(image(5))
    with path.open("rb") as file:
        data = map_content(os.dup(file.fileno()))
    path.unlink()
    assert decode(data).array[0, 0] == 5
    assert sent[0]["mapped"]


def test_the_budget_of_decoded_bytes_is_taken_before_a_pixel_is_decoded(decoder, monkeypatch):
    monkeypatch.setattr(decoding_budget, "BUDGET", decoding_budget.DecodingBudget(2**30))
    found = decode(encode_tiff(np.zeros((3000, 3000), np.uint8)))
    assert decoding_budget.BUDGET.taken == found.array.nbytes
    del found
    assert decoding_budget.BUDGET.taken == 0


SERVER = """
import os, sys
import numpy as np
from cellsparse_common.imaging import decoder_process
from cellsparse_common.imaging.images import decode_image, encode_tiff
decoder_process.decode_apart()
decode_image(encode_tiff(np.zeros((9, 9), np.uint8)), max_pixels=100)
print(decoder_process.decoder()._process.pid, flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_the_server():
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        forks = psutil.Process(int(server.stdout.readline()))
        all_of_them = [forks, *forks.children()]
        assert len(all_of_them) == 2
        server.kill()
    gone = threading.Event()
    for _ in range(int(PATIENCE * 10)):
        if not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in all_of_them):
            gone.set()
            break
        time.sleep(0.1)
    assert gone.is_set()
