"""An identity provider on loopback: it names its keys, and signs tokens."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "cellsparse"


def new_key(kind="RSA"):
    return rsa.generate_private_key(65537, 2048) if kind == "RSA" else ec.generate_private_key(ec.SECP256R1())


def public_key(key, key_id, **more):
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", **more}


class IdentityProvider:
    """Use it in a `with` block.

    Attributes:
        issuer: Its URL.
        keys: Private keys by id; change it as a provider rotates its keys.
        reads: How often its keys were fetched.
    """

    def __init__(self):
        self.keys = {"first": new_key()}
        self.reads = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer = provider.document(self.path)
                self.send_response(200 if answer is not None else 404)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}/realms/lab"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def document(self, path):
        """Return what it has at a path; None: nothing."""
        if path == "/realms/lab/.well-known/openid-configuration":
            return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        if path == "/realms/lab/keys":
            self.reads += 1
            return {"keys": [public_key(key, key_id) for key_id, key in self.keys.items()]}
        return None

    def sign(self, key_id="first", key=None, algorithm=None, **claims):
        """Return a token; a claim of None is left out."""
        key = key or self.keys[key_id]
        whole = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "u-1",
            "exp": time.time() + 300,
            "preferred_username": "ann",
            "roles": ["cellsparse-annotator"],
            "project": "nuclei",
            **claims,
        }
        whole = {name: value for name, value in whole.items() if value is not None}
        algorithm = algorithm or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        return jwt.encode(whole, key, algorithm=algorithm, headers={"kid": key_id})
