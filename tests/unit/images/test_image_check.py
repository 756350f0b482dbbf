"""What `make images-check` says of images, without Docker."""

import io
import json
import os
import subprocess
import sys

import pytest
from images.check import content_faults
from images.contents import main as list_files
from images.service_images import ROOT, TRAINERS
from images.sizes import Contents, Sizes
from support.limits import PATIENCE

TORCH_ONLY = frozenset({"torch", "numpy", "cellsparse-unet"})


def contents(packages=TORCH_ONLY, weights=(), pulled=100.0) -> Contents:
    sizes = Sizes(total=900, base=90, cuda=300, framework=300, ours=210, ours_pulled=pulled, largest={"scipy": 112.04})
    return Contents(sizes=sizes, packages=packages, weights=weights)


def check(docker: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "images.check", "--docker", docker],
        env={**os.environ, "PYTHONPATH": "tests"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_without_docker_it_says_so_in_one_sentence():
    done = check("/nowhere/docker")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == ("images-check needs Docker with a running daemon: there is no command '/nowhere/docker'.\n")


def test_a_daemon_that_does_not_answer_is_named(tmp_path):
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon.' >&2\nexit 1\n")
    script.chmod(0o755)
    done = check(str(script))
    assert done.returncode == 1
    assert "Cannot connect to the Docker daemon." in done.stderr


def test_a_good_image_has_no_fault():
    assert content_faults(TRAINERS["unet"], contents()) == []


@pytest.mark.parametrize(
    ("held", "fault"),
    [
        (contents(packages=TORCH_ONLY | {"tensorflow"}), "cellsparse-trainer-unet holds tensorflow."),
        (contents(packages=frozenset({"numpy"})), "cellsparse-trainer-unet lacks torch."),
        (contents(weights=("/opt/a.pt",)), "cellsparse-trainer-unet holds what looks like weights: /opt/a.pt."),
        (contents(pulled=151), "Ours in cellsparse-trainer-unet is 151 MB packed; allowed: 150."),
    ],
)
def test_what_an_image_must_not_be_is_told(held, fault):
    assert content_faults(TRAINERS["unet"], held) == [fault]


def test_sizes_are_reported_to_a_tenth():
    assert contents().sizes.as_json()["largest"] == {"scipy": 112.0}
    assert contents().sizes.as_json()["ours_pulled"] == 100.0


def test_what_the_base_has_is_not_ours(monkeypatch, capsys, tmp_path):
    (tmp_path / "same").write_bytes(b"12345")
    (tmp_path / "changed").write_bytes(b"123456")
    (tmp_path / "model.pt").write_bytes(bytes(2**20))
    (tmp_path / "twin").hardlink_to(tmp_path / "changed")
    asked = {"base": {f"{tmp_path}/same": 5, f"{tmp_path}/changed": 5}, "groups": {}}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked)))
    list_files(str(tmp_path))
    found = json.loads(capsys.readouterr().out)
    assert found["groups"] == {"base": 5, "ours": 6 + 2**20}
    assert found["weights"] == [f"{tmp_path}/model.pt"]
    assert 0 < found["ours_gzip"] < 5000
