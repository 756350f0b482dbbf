"""Addresses as messages may show them."""


def has_userinfo(url: str) -> bool:
    """Whether a URL holds a user or a password."""
    authority, _, path = url.partition("://")[2].partition("/")
    if "@" in authority:
        return True
    # A password with "/" in it ends the name of the server too early: what follows the colon is no port then.
    port = authority.partition(":")[2]
    return "@" in path and ":" in authority and not port.isdigit() and not authority.startswith("[")


def shown_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may be a secret."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    if has_userinfo(url):
        rest = rest.rpartition("@")[2]
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0]}"
