import threading

import pytest
from fastapi import FastAPI
from support.asgi import AsgiClient

from cellsparse_common.errors import Unavailable
from cellsparse_gateway.qupath.refusals import Refusal
from cellsparse_gateway.qupath.routes import router
from cellsparse_gateway.qupath.segmenting import Segmented

BODY = {"modelname": "default", "b64img": "AAAA"}
FEATURE = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}, "properties": {"object_idx": 0}}


class Told:
    """Stands in for the flow: notes what it is asked, and answers or raises what it is given."""

    def __init__(self, answer=None):
        self.asked = []
        self.threads = set()
        self._answer = answer or Segmented([FEATURE])

    def segment(self, backend, body):
        self.threads.add(threading.current_thread())
        self.asked.append((backend, body.modelname))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def reset(self, backend, body):
        self.asked.append((backend, body.modelname, body.pretrained))


def client(told):
    app = FastAPI(redirect_slashes=False)
    app.include_router(router(told))
    return AsgiClient(app)


@pytest.mark.parametrize(
    ("word", "backend"), [("cellpose", "cellpose"), ("stardist", "stardist"), ("elephant", "unet")]
)
@pytest.mark.parametrize("slash", ["/", ""])
def test_every_address_answers_with_and_without_its_slash(word, backend, slash):
    told = Told()
    answer = client(told).post(f"/{word}{slash}", BODY)
    assert (answer.status_code, answer.json()) == (200, [FEATURE])
    assert answer.headers["content-type"] == "application/json"
    assert told.asked == [(backend, "default")]


@pytest.mark.parametrize("path", ["/cellpose/reset/", "/cellpose/reset", "/cellposereset/", "/cellposereset"])
def test_reset_answers_an_empty_text(path):
    told = Told()
    answer = client(told).post(path, {"modelname": "default", "pretrained": "run-1"})
    assert (answer.status_code, answer.json()) == (200, "")
    assert told.asked == [("cellpose", "default", "run-1")]


@pytest.mark.parametrize("path", ["/", "/reset/", "/reset"])
def test_a_base_url_is_told_the_three_addresses(path):
    answer = client(Told()).post(path, BODY)
    assert answer.status_code == 404
    for word in ("cellpose", "stardist", "elephant"):
        assert f"http://testserver/{word}/" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status"), [(Refusal(409, "Train first."), 409), (Unavailable("Away."), 503), (RuntimeError("bug"), 500)]
)
def test_failures_are_one_sentence(error, status):
    answer = client(Told(error)).post("/stardist/", BODY)
    assert answer.status_code == status
    assert list(answer.json()) == ["detail"]
    assert "bug" not in answer.text


def test_a_bad_body_names_its_field():
    answer = client(Told()).post("/stardist/", {"b64img": ""})
    assert answer.status_code == 422
    assert answer.json() == {"detail": "The field modelname is not valid: Field required."}


def test_a_warning_is_a_header():
    answer = client(Told(Segmented([], "Many cells."))).post("/stardist/", BODY)
    assert answer.headers["x-cellsparse-warning"] == "Many cells."


def test_each_request_works_in_a_thread_that_ends_with_the_process():
    told = Told()
    client(told).post("/stardist/", BODY)
    assert all(thread.daemon and thread is not threading.main_thread() for thread in told.threads)
