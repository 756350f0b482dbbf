"""The chart's alerts in Prometheus's own promtool."""

import subprocess

import pytest
import yaml
from support.helm import one, render
from support.paths import ROOT, TESTS

PROMTOOL = ROOT / ".tools" / "bin" / "promtool"
RULES = {"metrics": {"rules": True}}


@pytest.fixture
def promtool(tmp_path):
    if not PROMTOOL.exists():
        pytest.skip("promtool is not built: `make tools` builds it where Go is installed")
    file = tmp_path / "alerts.yaml"
    file.write_text(
        yaml.safe_dump({"groups": one(render(RULES), "PrometheusRule", "lab-cellsparse")["spec"]["groups"]})
    )

    def run(*arguments):
        done = subprocess.run(
            [PROMTOOL, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_promtool_finds_no_fault_in_the_alerts(promtool):
    assert promtool("check", "rules", "--lint-fatal", "alerts.yaml")[0] == 0


def test_alerts_fire_when_they_should_and_only_then(promtool, tmp_path):
    tests = yaml.safe_load((TESTS / "support" / "alerts_cases.yaml").read_text())
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], **tests}))
    code, output = promtool("test", "rules", "cases.yaml")
    assert code == 0, output
