"""The hosted workflow calls make's targets, and nothing that could change under it."""

import re

import yaml
from support.paths import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_calls_the_targets_of_the_local_run():
    matrix = WORKFLOW["jobs"]["make"]["strategy"]["matrix"]["target"]
    runs = [step["run"] for step in STEPS if "run" in step]
    called = {run.removeprefix("make ") for run in runs if "${{" not in run} | set(matrix)
    assert all(run.startswith("make ") for run in runs)
    assert called <= TARGETS
    local = set(re.findall(r"\bstep ([a-z0-9-]+)", (ROOT / ".ci" / "run").read_text()))
    helpers = {"minio", "helm", "jdk", "groovy", "browser"}  # what other targets make by themselves
    assert local - helpers <= called


def test_actions_are_pinned_by_commit():
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", each) for each in used)


def test_it_may_only_read():
    assert WORKFLOW["permissions"] == {"contents": "read"}
