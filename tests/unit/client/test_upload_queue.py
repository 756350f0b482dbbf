"""Files that are sent while more are added: all of them once, few at a time, and errors where they are waited for."""

import threading

import pytest
from support.limits import PATIENCE

from cellsparse.errors import ResourceExhausted
from cellsparse.upload_queue import UploadQueue
from cellsparse.uploads import Blob

MIB = 2**20


class Recorder:
    """In place of a sender; waits in `send` until it may go on."""

    def __init__(self, *, held=False, error=None):
        self.sent = []
        self.most = self.now = 0
        self.go_on = threading.Event()
        self.error = error
        self._lock = threading.Lock()
        if not held:
            self.go_on.set()

    def send(self, blobs):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.go_on.wait(PATIENCE)
        with self._lock:
            self.now -= 1
            if self.error:
                raise self.error
            self.sent += [blob.sha256 for blob in blobs]


def blob(number, size):
    return Blob(sha256=f"{number:064x}", size=size, content=b"", what="file")


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 1), (450, 1), (20, 5 * MIB), (3, 100 * MIB)])
def test_all_are_sent_once_and_at_most_two_batches_at_a_time(count, size):
    recorder = Recorder()
    blobs = [blob(number, size) for number in range(count)]
    with UploadQueue(recorder) as queue:
        for each in blobs + blobs[::-1]:
            queue.add(each)
    assert sorted(recorder.sent) == [each.sha256 for each in blobs]
    assert recorder.most <= 2


def test_files_are_added_while_others_are_sent():
    recorder = Recorder(held=True)
    with UploadQueue(recorder) as queue:
        for number in range(3):
            queue.add(blob(number, 10 * MIB))  # with the second one a batch begins, and nobody waits for it
        assert not recorder.sent
        recorder.go_on.set()
    assert len(recorder.sent) == 3


def send(recorder, blobs):
    with UploadQueue(recorder) as queue:
        for each in blobs:
            queue.add(each)


@pytest.mark.parametrize("sizes", [[16 * MIB] * 10, [16 * MIB, 1], [1]])
def test_errors_are_raised_where_files_are_added_or_at_the_end(sizes):
    recorder = Recorder(error=ResourceExhausted("full"))
    with pytest.raises(ResourceExhausted, match="full"):
        send(recorder, [blob(number, size) for number, size in enumerate(sizes)])


def test_an_error_elsewhere_sends_nothing_more():
    recorder = Recorder()

    def broken():
        yield blob(1, 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send(recorder, broken())
    assert not recorder.sent
