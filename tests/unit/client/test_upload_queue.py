"""Files that are sent while more are added: all of them once, few at a time, and errors where they are waited for."""

import threading

import pytest
from support.limits import PATIENCE

from cellsparse.errors import ResourceExhausted
from cellsparse.upload_queue import UploadQueue
from cellsparse.uploads import Blob, Stopped

MIB = 2**20


class Recorder:
    """In place of a sender; waits in `put` until it may go on."""

    def __init__(self, *, held=False, error=None):
        self.sent, self.confirmed = [], []
        self.batches = self.most_batches = self.size = self.most_bytes = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.stopped = False
        self.error = error
        self._lock = threading.Lock()
        if not held:
            self.go_on.set()

    def put(self, blobs):
        size = sum(blob.size for blob in blobs)
        with self._lock:
            self.batches += 1
            self.size += size
            self.most_batches = max(self.most_batches, self.batches)
            if self.batches > 2:
                self.most_bytes = max(self.most_bytes, self.size)
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        with self._lock:
            self.batches -= 1
            self.size -= size
            if self.error:
                raise self.error
            if self.stopped:
                raise Stopped("stopped")
            self.sent += [blob.sha256 for blob in blobs]
        return blobs

    def confirm(self, blobs):
        with self._lock:
            assert {blob.sha256 for blob in blobs} <= set(self.sent)
            self.confirmed += [blob.sha256 for blob in blobs]

    def stop(self):
        self.stopped = True
        self.go_on.set()


def blob(number, size):
    return Blob(sha256=f"{number:064x}", size=size, content=b"", what="file")


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 1), (450, 1), (20, 5 * MIB), (3, 100 * MIB)])
def test_all_are_sent_and_confirmed_once_and_few_at_a_time(count, size):
    recorder = Recorder()
    blobs = [blob(number, size) for number in range(count)]
    with UploadQueue(recorder) as queue:
        for each in blobs + blobs[::-1]:
            queue.add(each)
    hashes = [each.sha256 for each in blobs]
    assert sorted(recorder.sent) == hashes
    assert sorted(recorder.confirmed) == hashes
    assert recorder.most_batches <= 4
    assert recorder.most_bytes <= 32 * MIB
    assert not recorder.stopped


def test_the_first_file_is_sent_at_once():
    recorder = Recorder()
    with UploadQueue(recorder) as queue:
        queue.add(blob(0, 1))
        assert recorder.begun.wait(PATIENCE)


def test_files_are_added_while_others_are_sent():
    recorder = Recorder(held=True)
    with UploadQueue(recorder) as queue:
        for number in range(4):
            queue.add(blob(number, 5 * MIB))  # nobody waits for the batches that have begun
        assert not recorder.sent
        recorder.go_on.set()
    assert len(recorder.sent) == 4


def send(recorder, blobs):
    with UploadQueue(recorder) as queue:
        for each in blobs:
            queue.add(each)


@pytest.mark.parametrize("sizes", [[16 * MIB] * 10, [16 * MIB, 1], [1]])
def test_errors_are_raised_where_files_are_added_or_at_the_end(sizes):
    recorder = Recorder(error=ResourceExhausted("full"))
    with pytest.raises(ResourceExhausted, match="full"):
        send(recorder, [blob(number, size) for number, size in enumerate(sizes)])
    assert not recorder.batches


def test_an_error_elsewhere_stops_what_is_under_way():
    recorder = Recorder(held=True)

    def broken():
        yield blob(1, 1)
        yield blob(2, 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send(recorder, broken())
    assert recorder.stopped
    assert not recorder.batches
    assert not recorder.sent
    assert not [thread for thread in threading.enumerate() if thread.name == "upload"]
