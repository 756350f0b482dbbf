"""Headers asked for over kept connections: used again, and given up where the server has closed them."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cellsparse_common.storage.s3_heads import HeadRequests


@contextmanager
def server(*, keep=True):
    """Yield a base URL and the ports of the connections that came, by request."""
    ports = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            ports.append(self.client_address[1])
            self.send_response(404 if "missing" in self.path else 200)
            self.send_header("Content-Length", "5")
            self.send_header("X-Seen", f"{self.path} {self.headers.get('X-Given')}")
            self.end_headers()
            self.close_connection = not keep  # without a word, as servers do with idle connections

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, daemon=True)
        thread.start()
        yield "http://{}:{}".format(*one.server_address), ports
        one.shutdown()
        thread.join()


def test_a_connection_is_used_again():
    requests = HeadRequests(None)
    with server() as (url, ports):
        for path, status in (("/a?b=c", 200), ("/missing?b=c", 404), ("/d?e=f", 200)):
            found = requests.ask(url + path, {"X-Given": "yes"})
            assert found is not None
            assert found[0] == status
            assert found[1]["X-Seen"] == f"{path} yes"
            assert found[1]["Content-Length"] == "5"
        assert len(set(ports)) == 1


def test_a_connection_that_was_closed_is_no_answer_and_the_next_one_is_new():
    requests = HeadRequests(None)
    with server(keep=False) as (url, ports):
        found = [requests.ask(f"{url}/a?b", {}) for _ in range(4)]
        assert [each is None for each in found] == [False, True, False, True]
        assert len(set(ports)) == 2
    assert requests.ask(f"{url}/a?b", {}) is None  # nobody listens any more
