"""The token that a client shows: of a file, of the environment, of `cellsparse login`, or of the local services."""

import json
import os
import re
import stat
from pathlib import Path

from cellsparse.errors import InvalidArgument
from cellsparse.home import home_dir
from cellsparse.sources import refuse_endless
from cellsparse_common.config.exposure import is_loopback

TOKEN_VARIABLE = "CELLSPARSE_TOKEN"  # noqa: S105 - a name
FILE_VARIABLE = "CELLSPARSE_TOKEN_FILE"
INSECURE_VARIABLE = "CELLSPARSE_INSECURE"
LOGINS = "logins.json"
ADMIN_FILE = "admin-token"
"""In the home folder of local services that ask for tokens."""
_HERE = ("0.0.0.0", "::")  # noqa: S104 - what a server on this machine may call itself
_LARGEST = 16_384
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,6000}")


def find_token(address: str, home: Path | None) -> str:
    """Return the token to show; empty: none is known.

    Args:
        address: host:port of the orchestrator.
        home: Home folder of the local services, if the orchestrator is theirs.

    Raises:
        InvalidArgument: A file cannot be read, may be read by others, or holds no token.
    """
    if given := os.environ.get(FILE_VARIABLE):
        return read_token(Path(given))
    if named := os.environ.get(TOKEN_VARIABLE):
        return checked(named, TOKEN_VARIABLE)
    if kept := _logins().get(address):
        return kept
    if home is not None and (home / ADMIN_FILE).is_file():
        return read_token(home / ADMIN_FILE)
    return ""


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        InvalidArgument: It cannot be read, or holds no token.
    """
    try:
        refuse_endless(path)
        with path.open() as file:
            return checked(file.read(_LARGEST), str(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidArgument(f"The token's file {path} cannot be read: {reason}.") from None


def checked(text: str, source: str) -> str:
    """Return a token without blanks around it; raises InvalidArgument, which never quotes the text."""
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise InvalidArgument(f"{source} holds no token: one line of letters, digits and ._~+/=- is expected.")
    return token


def keep_login(address: str, token: str) -> Path:
    """Keep the token for an address in a file that nobody else may read, and return the file."""
    return _write({**_logins(), address: token})


def forget_login(address: str) -> bool:
    """Forget the token for an address; return whether there was one."""
    logins = _logins()
    found = logins.pop(address, None) is not None
    if found:
        _write(logins)
    return found


def refuse_to_show(address: str) -> None:
    """Raise InvalidArgument if the network between here and an address could read a token: there is no TLS."""
    host = address.rpartition(":")[0].strip("[]")
    if not is_loopback(host) and host not in _HERE and os.environ.get(INSECURE_VARIABLE, "") not in ("1", "true"):
        raise InvalidArgument(
            f"The token would go to {address} without TLS, where others can read it: name the server's authority with "
            f"--ca or CELLSPARSE_TLS_CA, or set {INSECURE_VARIABLE}=1."
        )


def _logins() -> dict[str, str]:
    path = home_dir() / LOGINS
    try:
        with path.open() as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise InvalidArgument(f"{path} holds tokens, and others may read it; `chmod 600 {path}` mends that.")
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        raise InvalidArgument(f"{path} cannot be read as a file of logins; remove it and log in again.") from None
    if not isinstance(content, dict):
        raise InvalidArgument(f"{path} cannot be read as a file of logins; remove it and log in again.")
    return {str(address): checked(str(token), str(path)) for address, token in content.items()}


def _write(logins: dict[str, str]) -> Path:
    path = home_dir() / LOGINS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(logins, file, indent=1)
        new.replace(path)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}.") from None
    return path
