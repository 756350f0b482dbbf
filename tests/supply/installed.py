"""Runs inside a container: prints what is installed there as JSON. Needs the standard library only.

{"python": [{"name", "version", "license"}], "system": [{"name", "version", "architecture"}]}
"""

import importlib.metadata
import json
import subprocess
import sys


def python_packages() -> list[dict[str, str]]:
    """Return the installed Python packages."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        licence = distribution.metadata.get("License-Expression") or ""
        found[name.lower()] = {"name": name, "version": distribution.version, "license": licence}
    return [found[name] for name in sorted(found)]


def system_packages() -> list[dict[str, str]]:
    """Return the installed packages of Debian or Ubuntu; none elsewhere."""
    query = ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        dict(zip(("name", "version", "architecture"), line.split("\t"), strict=True))
        for line in done.stdout.splitlines()
    ]


if __name__ == "__main__":
    json.dump({"python": python_packages(), "system": system_packages()}, sys.stdout)
