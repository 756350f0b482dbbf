"""The lock of the home folder."""

import threading
import time

import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.home import own_home


def test_a_folder_in_use_is_refused(tmp_path):
    with own_home(tmp_path), pytest.raises(FailedPrecondition, match="Another orchestrator uses"), own_home(tmp_path):
        pass
    with own_home(tmp_path):  # it was given back
        pass


def test_a_pod_waits_for_the_one_that_is_ending(tmp_path):
    """It ended with code 1 and was started anew, which takes as long again."""
    held, waiting = threading.Event(), threading.Event()

    def end_soon():
        with own_home(tmp_path):
            held.set()
            waiting.wait(PATIENCE)
            time.sleep(0.5)

    ending = threading.Thread(target=end_soon)
    ending.start()
    assert held.wait(PATIENCE)
    waiting.set()
    with own_home(tmp_path, wait_seconds=PATIENCE):
        pass
    ending.join(PATIENCE)
