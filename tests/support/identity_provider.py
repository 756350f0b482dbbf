"""An identity provider on loopback: it names its keys, signs tokens, and signs people in who always agree."""

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

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
        claims: What tokens of a sign-in have besides the usual; change it as people differ.
        secret: The client's secret; empty: a public client.
        renews: Whether it gives refresh tokens, each good for one renewal.
        renewals: How often it has renewed a session.
        seconds: How long tokens are valid.
        refuses: Whether people who are to sign in refuse.
    """

    def __init__(self):
        self.keys = {"first": new_key()}
        self.reads = 0
        self.claims = {}
        self.secret = ""
        self.renews = False
        self.renewals = 0
        self.seconds = 300.0
        self.refuses = False
        self._codes = {}
        self._refresh = set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if urlsplit(self.path).path == "/realms/lab/auth":
                    self.send_response(302)
                    self.send_header("Location", provider.agree(_fields(urlsplit(self.path).query)))
                    self.end_headers()
                    return
                answer = provider.document(self.path)
                self.send_response(200 if answer is not None else 404)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def do_POST(self):
                form = _fields(self.rfile.read(int(self.headers["Content-Length"])).decode())
                answer = provider.exchange(form, self.headers.get("Authorization", ""))
                self.send_response(200 if "error" not in answer else 400)
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
            return {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/keys",
                "authorization_endpoint": f"{self.issuer}/auth",
                "token_endpoint": f"{self.issuer}/token",
            }
        if path == "/realms/lab/keys":
            self.reads += 1
            return {"keys": [public_key(key, key_id) for key_id, key in self.keys.items()]}
        return None

    def agree(self, asked):
        """Return where the browser goes after someone has signed in, or refused to."""
        assert asked["response_type"] == "code"
        assert asked["client_id"] == AUDIENCE
        assert asked["code_challenge_method"] == "S256"
        if self.refuses:
            return f"{asked['redirect_uri']}?{urlencode({'error': 'access_denied', 'state': asked['state']})}"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def exchange(self, form, authorization):
        """Return the tokens for a code or a refresh token, once, or an error."""
        basic = f"Basic {base64.b64encode(f'{AUDIENCE}:{self.secret}'.encode()).decode()}" if self.secret else ""
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self._refresh or authorization != basic or form["client_id"] != AUDIENCE:
                return {"error": "invalid_grant"}
            self._refresh.remove(form["refresh_token"])
            self.renewals += 1
            return self._tokens()
        asked = self._codes.pop(form.get("code"), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        good = (
            asked is not None
            and form["grant_type"] == "authorization_code"
            and challenge == asked["code_challenge"]
            and form["redirect_uri"] == asked["redirect_uri"]
            and authorization == basic
        )
        if not good:
            return {"error": "invalid_grant"}
        return self._tokens(nonce=asked["nonce"])

    def _tokens(self, **claims):
        given = {"id_token": self.sign(**{**claims, **self.claims}), "token_type": "Bearer"}
        if self.renews:
            given["refresh_token"] = secrets.token_urlsafe(16)
            self._refresh.add(given["refresh_token"])
        return given

    def forget(self):
        """End all sessions: nothing that it gave is renewed any more."""
        self._refresh.clear()

    def sign(self, key_id="first", key=None, algorithm=None, **claims):
        """Return a token; a claim of None is left out."""
        key = key or self.keys[key_id]
        whole = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "u-1",
            "exp": time.time() + self.seconds,
            "preferred_username": "ann",
            "roles": ["cellsparse-annotator"],
            "project": "nuclei",
            **claims,
        }
        whole = {name: value for name, value in whole.items() if value is not None}
        algorithm = algorithm or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        return jwt.encode(whole, key, algorithm=algorithm, headers={"kid": key_id})


def _fields(text):
    return {name: values[0] for name, values in parse_qs(text).items()}
