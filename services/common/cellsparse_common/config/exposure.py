"""Whether others on the network can reach an address."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach a host.

    Args:
        host: Name or IP address, IPv6 with or without brackets.
    """
    name = host.strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
