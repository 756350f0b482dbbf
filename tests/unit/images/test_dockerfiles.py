"""The Dockerfiles are one text but for what differs, and keep what every image promises."""

import re
import subprocess
import tomllib

import pytest
from images.service_images import IMAGES, ROOT, ServiceImage, read_lock
from supply.sbom import base_of

from cellsparse_gateway.sample import FILE

EVERY_IMAGE = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.folder)


def instructions(image: ServiceImage) -> list[str]:
    """The Dockerfile without comments, one instruction per line."""
    text = (ROOT / "services" / image.folder / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()


def final_stage(image: ServiceImage) -> list[str]:
    found = instructions(image)
    return found[max(n for n, line in enumerate(found) if line.startswith("FROM")) :]


def without_differences(image: ServiceImage) -> list[str]:
    text = "\n".join(line for line in instructions(image) if not line.startswith("COPY services/"))
    text = re.sub(r"FROM dependencies AS sample\n.*?(?=FROM python\n)", "", text, flags=re.DOTALL)
    for own, common in [
        (" ".join(f"services/{folder}" for folder in image.own), "SOURCES"),
        (re.search(r"ARG \w+_IMAGE=(\S+)", text)[1], "DEFAULT_BASE"),
        (re.search(r'image.description="([^"]+)"', text)[1], "DESCRIPTION"),
        *((f" --extra {extra}", "") for extra in image.extras),
        (f'"{image.name}"', "TITLE"),
        (f"--package {image.package}", "--package PACKAGE"),
        (f'"{image.health}"', "HEALTH"),
        (f'"{image.module}"', "MODULE"),
        ("CELLSPARSE_GATEWAY_", "CELLSPARSE_"),
        (str(image.port), "PORT"),
        (image.base, "BASE"),
        ("RUN install --directory --owner=10001 --group=0 --mode=0775 /var/lib/cellsparse\n", ""),
        (" CELLSPARSE_HOME=/var/lib/cellsparse", ""),
        ("COPY --from=sample /opt/sample /opt/sample\n", ""),
        (" CELLSPARSE_SAMPLE=/opt/sample/nuclei.tif", ""),
        (text[text.find("FROM dependencies AS sample") : text.rfind("FROM python")], "")
        if "AS sample" in text
        else ("", ""),
    ]:
        text = text.replace(own, common)
    return text.splitlines()


@EVERY_IMAGE
def test_they_differ_only_where_services_differ(image):
    assert without_differences(image) == without_differences(IMAGES[0])


@EVERY_IMAGE
def test_any_user_of_group_0_may_run_it(image):
    """OpenShift gives each namespace user ids of its own, always with group 0."""
    final = final_stage(image)
    assert any("HOME=/tmp" in line for line in final)
    for line in final:
        assert "chown" not in line
        assert "chmod" not in line
        if "--owner" in line:
            assert "--group=0 --mode=0775" in line


@EVERY_IMAGE
def test_only_the_services_own_folders_are_copied(image):
    copied = [line.split()[1:-1] for line in instructions(image) if line.startswith("COPY") and "--from" not in line]
    projects = [[f"services/{folder}/pyproject.toml"] for folder in image.own]
    sources = [[f"services/{folder}"] for folder in image.own]
    assert copied == [["pyproject.toml", "uv.lock"], *projects, ["proto"], *sources]


@EVERY_IMAGE
def test_dependencies_come_from_the_lock_before_any_source(image):
    found = instructions(image)
    installs = [
        n for n, line in enumerate(found) if "uv sync --frozen --no-default-groups --no-install-workspace" in line
    ]
    assert len(installs) == 1
    assert installs[0] < found.index("COPY proto proto")
    assert all("--no-deps" in line for line in found if "uv pip install" in line)


@EVERY_IMAGE
def test_the_base_is_an_argument_with_a_full_tag_and_its_digest(image):
    found = instructions(image)
    assert re.fullmatch(rf"ARG {image.base}=[a-z/]+:\d+\.\d+[\w.-]*@sha256:[0-9a-f]{{64}}", found[0])
    assert found[1] == f"FROM ${{{image.base}}} AS python"
    stages = {line.split(" AS ")[1] for line in found if " AS " in line}
    assert {line.split()[1] for line in found[2:] if line.startswith("FROM")} <= stages


def test_a_base_has_one_digest():
    bases = {base_of(image) for image in IMAGES}
    assert len({name for name, _ in bases}) == len(bases)


def test_torch_and_tensorflow_stand_on_the_cuda_of_their_wheels():
    defaults = {image.folder: instructions(image)[0].partition("=")[2] for image in IMAGES}
    assert defaults["trainer_cellpose"] == defaults["trainer_cellpose_sam"] == defaults["trainer_unet"]
    assert defaults["trainer_unet"].startswith("nvidia/cuda:13.0.")
    assert defaults["trainer_stardist"].startswith("nvidia/cuda:12.9.")
    assert defaults["sparsifier"] == defaults["trainer_stardist"]


@EVERY_IMAGE
def test_it_runs_without_rights_and_tells_its_health(image):
    last = final_stage(image)
    assert [line for line in last if line.startswith("USER")] == ["USER 10001:10001"]
    assert f'CMD ["python", "-m", "{image.health}"]' in next(line for line in last if line.startswith("HEALTH"))
    assert last[-1] == f'ENTRYPOINT ["/usr/bin/tini", "--", "python", "-m", "{image.module}"]'
    assert f"EXPOSE {image.port}" in last
    for label in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert any(f"org.opencontainers.image.{label}=" in line for line in last)


@EVERY_IMAGE
def test_it_listens_on_its_services_default_port(image):
    folder = ROOT / "services" / image.folder / image.module
    named = re.compile(rf"(?i:port)\w*(: int)? ?= ?{image.port // 1000}_?{image.port % 1000:03}\b")
    assert any(named.search(path.read_text()) for path in folder.glob("*.py"))


@EVERY_IMAGE
def test_nothing_is_added_from_afar_and_nothing_is_secret(image):
    text = "\n".join(instructions(image))
    assert not re.search(r"^ADD\b|:latest\b|\bcurl\b|\bwget\b|https?:", text, re.MULTILINE)
    assert not re.search(r"(?i)secret|password|token|access_key", text)


@EVERY_IMAGE
def test_versions_are_those_of_the_project(image):
    uv = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    project = tomllib.loads((ROOT / "services" / image.folder / "pyproject.toml").read_text())["project"]
    assert f"ARG UV_VERSION={uv}" in instructions(image)
    assert f"ARG VERSION={project['version']}" in instructions(image)


def test_the_sample_comes_from_the_locked_stardist():
    found = instructions(next(image for image in IMAGES if image.folder == "gateway"))
    (locked,) = [package["version"] for package in read_lock()["package"] if package["name"] == "stardist"]
    assert f"ARG STARDIST_VERSION={locked}" in found
    copied = next(line for line in found if "uv pip install --no-deps --target /tmp/stardist" in line)
    assert str(FILE) in copied


def test_the_build_context_holds_sources_only():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    assert {line for line in lines if line.startswith("!")} == {"!pyproject.toml", "!uv.lock", "!proto", "!services"}


def test_make_builds_all_of_them():
    show = ["make", "--silent", "--directory", str(ROOT), "--eval", "show-images: ; @echo $(IMAGES)", "show-images"]
    named = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert sorted(named.split()) == sorted(image.folder for image in IMAGES)
    assert {path.parent.name for path in (ROOT / "services").glob("*/Dockerfile")} == {image.folder for image in IMAGES}
