"""Lists of what images hold, their signatures, and the audit of what is locked."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from images.containers import Docker
from images.service_images import IMAGES, ROOT, TRAINERS
from spdx_tools.spdx.model import RelationshipType
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
from spdx_tools.spdx.writer.write_anything import write_file
from supply import audit, installed, sbom
from support.limits import PATIENCE

CACHE = Path(os.environ.get("CELLSPARSE_CACHE") or Path.home() / ".cache" / "cellsparse")
FOUND = {
    "python": [
        {"name": "Torch", "version": "2.13.0+cu130", "license": ""},
        {"name": "numpy", "version": "2.0.2", "license": "BSD-3-Clause AND no licence at all"},
        {"name": "h5py", "version": "3.1", "license": "BSD-3-Clause OR MIT"},
    ],
    "system": [{"name": "tini", "version": "0.19.0-1", "architecture": "amd64"}],
}
PUSHED = f"lab.example/x/{IMAGES[0].name}@sha256:{'ab' * 32}"


@pytest.fixture
def uv():
    found = sorted(CACHE.glob("uv-*/bin/uv"))
    if not found:
        pytest.skip("uv is not in the cache; `make setup` puts it there")
    return str(found[-1])


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"supply.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": "tests"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_every_image_s_locked_packages_are_valid_spdx(uv, tmp_path):
    for image in (TRAINERS["unet"], IMAGES[-1]):
        parts = sbom.from_lock(image, uv)
        file = tmp_path / f"{image.name}.spdx.json"
        write_file(sbom.document(image, parts, "a test."), str(file), validate=False)
        read = parse_file(str(file))
        assert validate_full_spdx_document(read) == []
        assert len(read.packages) == len(parts) + 2
        names = {part.name for part in parts}
        assert "protobuf" in names
        assert ("torch" in names) == (image in TRAINERS.values())
        assert not {"pywin32", "colorama", "pytest"} & names
        (described,) = [each for each in read.relationships if each.relationship_type is RelationshipType.DESCRIBES]
        assert described.related_spdx_element_id == "SPDXRef-Image"


def test_an_image_that_is_there_is_asked_itself(tmp_path):
    answer = json.dumps(FOUND)
    docker = program(tmp_path, "docker", f"[ $1 = run ] && cat >/dev/null && echo '{answer}'; true")
    parts = sbom.from_image(Docker(command=docker), "cellsparse-trainer-unet:dev")
    assert [part.url for part in parts] == [
        "pkg:pypi/torch@2.13.0%2Bcu130",
        "pkg:pypi/numpy@2.0.2",
        "pkg:pypi/h5py@3.1",
        "pkg:deb/debian/tini@0.19.0-1?arch=amd64",
    ]
    made = sbom.document(TRAINERS["unet"], parts, "a test.")
    assert validate_full_spdx_document(made) == []
    licences = [str(package.license_declared) for package in made.packages[2:]]
    assert licences == ["NOASSERTION", "NOASSERTION", "BSD-3-Clause OR MIT", "NOASSERTION"]


def test_the_same_sources_give_the_same_list():
    parts = sbom.parts_of(FOUND)
    first, second = (sbom.document(IMAGES[0], parts, "a test.") for _ in range(2))
    assert first == second
    other = sbom.document(IMAGES[0], parts[1:], "a test.")
    assert other.creation_info.document_namespace != first.creation_info.document_namespace


def test_what_runs_in_the_container_lists_this_environment():
    names = {each["name"].lower() for each in installed.python_packages()}
    assert {"numpy", "grpcio"} <= names


def test_without_docker_and_uv_there_is_a_sentence(tmp_path):
    done = run("sbom", "--docker", "/nowhere/docker", "--uv", "/nowhere/uv", "--out", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("images-sbom: neither Docker nor uv can say what cellsparse-sparsifier:dev holds: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "images-sign: it needs a key: make images-sign COSIGN_KEY=FILE; `cosign generate-key-pair` makes one."),
        (["--key", "k"], "images-sign: there is no command '/nowhere/cosign'; `make cosign` builds it where Go is"),
        (["--key", "k", "--cosign", "sh"], "images-sign: it signs what is in a registry: make images-sign REGISTRY="),
        (
            ["--key", "k", "--cosign", "sh", "--prefix", "lab.example/x/"],
            "images-sign: /nowhere/cellsparse-sparsifier.spdx.json is missing; `make images-sbom` writes it.",
        ),
    ],
)
def test_what_a_signature_lacks_is_said_in_a_sentence(arguments, sentence):
    done = run("sign", "--cosign", "/nowhere/cosign", "--sbom", "/nowhere", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)


def test_digests_are_signed_and_what_images_hold_is_attested(tmp_path):
    for image in IMAGES:
        (tmp_path / f"{image.name}.spdx.json").write_text("{}")
    cosign = program(tmp_path, "cosign", f'echo "$@" >>{tmp_path}/asked')
    name = 'name=$(echo "$5" | sed "s/:[^:]*$//")'
    docker = program(tmp_path, "docker", f"{name}; echo other.example/y@sha256:00; echo $name@sha256:{'ab' * 32}")
    common = ["--key", "k", "--cosign", cosign, "--prefix", "lab.example/x/", "--sbom", str(tmp_path)]
    done = run("sign", *common, "--docker", docker)
    assert (done.returncode, done.stderr) == (0, "")
    asked = (tmp_path / "asked").read_text().splitlines()
    predicate = tmp_path / f"{IMAGES[0].name}.spdx.json"
    assert asked[:2] == [
        f"sign --yes --key k {PUSHED}",
        f"attest --yes --key k --type spdxjson --predicate {predicate} {PUSHED}",
    ]
    assert len(asked) == 2 * len(IMAGES)

    done = run("sign", *common, "--docker", program(tmp_path, "unpushed", "echo"))
    assert done.returncode == 1
    assert "has no digest of its registry; `docker push lab.example/x/cellsparse-sparsifier:dev`" in done.stderr


ENTRY = 'id = "GHSA-1"\npackage = "a"\nuntil = 2026-12-01\nreason = "Not called."'
REPORT = {
    "dependencies": [
        {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "aliases": ["GHSA-1"], "fix_versions": ["2"]}]},
        {"name": "b", "version": "3", "vulns": []},
    ]
}


def test_the_list_of_what_is_let_pass_can_be_read():
    audit.read_allowed(audit.ALLOWED.read_text())


def test_a_vulnerability_fails_unless_it_is_let_pass_until_a_day_to_come():
    allowed = audit.read_allowed(f"[[allowed]]\n{ENTRY}")
    assert audit.judge(REPORT, allowed, date(2026, 12, 1)) == []
    assert audit.judge(REPORT, [], date(2026, 12, 1)) == ["a 1 has PYSEC-1, repaired in 2."]
    late = audit.judge(REPORT, allowed, date(2026, 12, 2))
    assert late == ["a 1 has PYSEC-1, repaired in 2. It was let pass until 2026-12-01."]
    clean = {"dependencies": [{"name": "a", "version": "2", "vulns": []}]}
    assert audit.judge(clean, allowed, date(2026, 12, 1)) == ["GHSA-1 of a is let pass but not there; take it out."]


def test_all_that_images_and_the_client_install_is_looked_up(uv):
    first, *others = audit.locked(uv)
    assert {"torch", "tensorflow", "kubernetes", "fastapi", "optuna"} <= first.keys()
    both = [each["cellpose"] for each in (first, *others) if "cellpose" in each]
    assert len(both) == len(set(both)) == 2


@pytest.mark.parametrize("change", ['reason = ""', 'id = "x"', 'more = "y"', 'until = "soon"'])
def test_an_entry_that_says_too_little_is_refused(change):
    key = change.partition(" ")[0]
    entry = "\n".join(line for line in ENTRY.splitlines() if not line.startswith(f"{key} "))
    with pytest.raises(ValueError, match=r"GHSA-1|'x'"):
        audit.read_allowed(f"[[allowed]]\n{entry}\n{change}")


def test_a_service_that_cannot_be_reached_is_no_fault_but_another_failure_is(tmp_path):
    away = program(tmp_path, "away", "echo 'requests.exceptions.ConnectionError: Max retries exceeded' >&2; exit 1")
    assert audit.ask(away, {"a": "1"}) is None
    broken = program(tmp_path, "broken", "echo 'usage: pip-audit' >&2; exit 2")
    with pytest.raises(RuntimeError, match="usage: pip-audit"):
        audit.ask(broken, {"a": "1"})
    answers = program(tmp_path, "answers", f"echo '{json.dumps(REPORT)}'; exit 1")
    assert audit.ask(answers, {"a": "1"}) == REPORT
