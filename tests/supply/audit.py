"""Part of `make lint`: known vulnerabilities of the locked Python packages, asked with pip-audit.

Where the advisory service cannot be reached it says so and passes: a machine without a network can still check all
else. What is let pass is in advisories.toml, each with a reason and a last day.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from images.service_images import IMAGES
from supply import sbom

CLIENT_EXTRAS = ("cluster", "demo", "plots", "search", "vendor")
ALLOWED = Path(__file__).with_name("advisories.toml")
_SECONDS = 600
_ID = re.compile(r"(PYSEC|CVE|GHSA|OSV)-[\w-]+")


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """An advisory that is let pass."""

    id: str
    package: str
    until: date
    reason: str


def main() -> None:
    """Ask; exit code 1 and a sentence per fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uv", default="uv", help="the uv command")
    parser.add_argument("--pip-audit", default="pip-audit", help="the pip-audit command")
    given = parser.parse_args()
    try:
        allowed = read_allowed(ALLOWED.read_text())
    except ValueError as error:
        sys.exit(f"audit: {ALLOWED.name}: {error}")
    report: dict[str, Any] = {"dependencies": []}
    for packages in locked(given.uv):
        found = ask(given.pip_audit, packages)
        if found is None:
            print("audit: the advisory service cannot be reached, so known vulnerabilities were not looked up")
            return
        report["dependencies"] += found["dependencies"]
    faults = judge(report, allowed, datetime.now(UTC).date())
    print(f"audit: {len(report['dependencies'])} locked packages, {len(faults)} faults")
    sys.exit("\n".join(faults) or 0)


def read_allowed(text: str) -> list[Allowed]:
    """Return what is let pass.

    Raises:
        ValueError: An entry lacks something, or its id is none.
    """
    found = []
    for entry in tomllib.loads(text).get("allowed", []):
        try:
            one = Allowed(**entry)
        except TypeError as error:
            raise ValueError(f"{entry}: id, package, until and reason are needed ({error}).") from None
        if not _ID.fullmatch(one.id) or not isinstance(one.until, date) or not one.reason.strip():
            raise ValueError(f"{entry}: id is that of an advisory, until a date, and reason a sentence.")
        found.append(one)
    return found


def locked(uv: str) -> list[dict[str, str]]:
    """Return versions by package of all that images and the Python client install.

    Two versions of one package are in two of the lists, as pip-audit takes one of each at a time.
    """
    parts = [part for image in IMAGES for part in sbom.from_lock(image, uv)]
    parts += sbom.locked(uv, "cellsparse", CLIENT_EXTRAS, "3.12")
    lists: list[dict[str, str]] = []
    for part in parts:
        if not any(each.get(part.name) == part.version for each in lists):
            free = next((each for each in lists if part.name not in each), None)
            if free is None:
                lists.append(free := {})
            free[part.name] = part.version
    return lists


def ask(pip_audit: str, packages: Mapping[str, str]) -> dict[str, Any] | None:
    """Return pip-audit's report; None where its service cannot be reached.

    Args:
        pip_audit: The command.
        packages: Versions by name.

    Raises:
        RuntimeError: It failed for another reason, with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
        command = [
            pip_audit,
            "--requirement",
            str(file),
            "--disable-pip",
            "--no-deps",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        pass
    else:
        return report
    if re.search(r"Connection|connect|Timeout|timed out|resolve|Proxy|HTTPError|Max retries|SSL", done.stderr):
        return None
    raise RuntimeError(f"pip-audit failed: {done.stderr.strip()[-500:]}")


def judge(report: dict[str, Any], allowed: list[Allowed], today: date) -> list[str]:
    """Return a sentence per vulnerability that is not let pass, and per entry that is over or not needed.

    Args:
        report: Of pip-audit.
        allowed: What is let pass.
        today: The day to judge by.
    """
    faults, used = [], set()
    for dependency in report["dependencies"]:
        for found in dependency.get("vulns", []):
            names = {found["id"], *found.get("aliases", [])}
            one = next((each for each in allowed if each.id in names and each.package == dependency["name"]), None)
            if one is not None and one.until >= today:
                used.add(one)
                continue
            over = f" It was let pass until {one.until}." if one is not None else ""
            fixed = (
                f"repaired in {', '.join(found['fix_versions'])}" if found.get("fix_versions") else "not repaired yet"
            )
            faults.append(f"{dependency['name']} {dependency['version']} has {found['id']}, {fixed}.{over}")
            used |= {one} - {None}
    faults += [
        f"{one.id} of {one.package} is let pass but not there; take it out." for one in allowed if one not in used
    ]
    return faults


if __name__ == "__main__":
    main()
