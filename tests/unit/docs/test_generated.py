"""The parts of the pages that are written from the code."""

import sys
from pathlib import Path

import pytest
from support.pages import PAGES, name_of
from support.paths import ROOT

from cellsparse_common.config.settings import ServerSettings, StoreSettings
from cellsparse_gateway.settings import GatewaySettings
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, Gpu, TrainerTemplate
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_trainer.config.settings import ProcessSettings, TrainerSettings
from cellsparse_trainer.contract import installed_backends

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "extensions"))

import generated  # noqa: E402 - Sphinx finds its extensions in the same way
import grpc_reference  # noqa: E402

ENVIRONMENT = [StoreSettings, ServerSettings, OrchestratorSettings, GatewaySettings, TrainerSettings, ProcessSettings]
KEYS = [ClusterSettings, TrainerTemplate, Gpu]
PROTOS = sorted((ROOT / "proto" / "cellsparse" / "v1").glob("*.proto"))


def page(name: str) -> str:
    return generated.fill((DOCS / name).read_text())


@pytest.mark.parametrize("found", PAGES, ids=name_of)
def test_every_mark_is_filled(found):
    assert "<!-- generated:" not in generated.fill(found.read_text())


def test_an_unknown_renderer_is_refused():
    with pytest.raises(KeyError):
        generated.fill("<!-- generated: no-such-table -->")


@pytest.mark.parametrize("cls", [*ENVIRONMENT, *KEYS], ids=lambda cls: cls.__name__)
def test_settings_have_all_fields_with_their_meaning(cls):
    rows = page("operations/settings.md").splitlines()
    for name, info in cls.model_fields.items():
        if name not in cls.__annotations__:
            continue
        variable = info.validation_alias or f"{cls.model_config.get('env_prefix', '')}{name.upper()}"
        spelled = f"`{variable}`" if cls in ENVIRONMENT else f"`{name}`"
        assert info.description, f"{cls.__name__}.{name} has no docstring"
        assert any(row.startswith(f"| {spelled} |") and not row.endswith("|  |") for row in rows), spelled


def test_a_table_shows_default_and_range():
    rows = page("operations/settings.md").splitlines()
    port = next(row for row in rows if row.startswith("| `CELLSPARSE_METRICS_PORT`"))
    assert port.startswith("| `CELLSPARSE_METRICS_PORT` | `0` | from 0 to 65,535 |")


def test_no_table_shows_whose_machine_built_it():
    assert str(Path.home()) not in page("operations/settings.md")


def test_every_backend_has_its_presets():
    rows = page("training.md").splitlines()
    for backend in installed_backends():
        assert f"### {backend}" in rows
    assert "| `class_weights` | 1, 1, 1 | 1, 10, 10 | 1, 1, 1 | 1, 10, 10 |" in rows


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.stem)
def test_the_reference_has_every_message_enum_and_service(path):
    text = grpc_reference.proto(path.stem)
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind in ("message", "enum", "service"):
            assert f"\n## {rest.split()[0]}\n" in text
    assert f"proto {path.stem} -->" in (DOCS / "reference" / "grpc" / f"{path.stem}.md").read_text()


def test_the_reference_has_rules_and_comments():
    text = grpc_reference.proto("trainer")
    assert "| `crop_size` | optional uint32 | from 32, up to 2,048, multiple of 16 |" in text


def test_links_that_leave_the_pages_become_paths():
    text = "[a](../README.md#x), [b](labels.md), ![c](../.assets/result.png), [d](https://example.org)"
    linked = generated.link_outside(text, DOCS / "index.md", DOCS)
    assert linked == text.replace("(../README.md", "(path:../README.md")


def test_docstrings_keep_their_code():
    lines = ["Example:", "    import cellsparse", "", "Some `Item`s, and `Run`."]
    generated._from_markdown(None, "", "", None, None, lines)
    assert lines == ["Example::", "", "    import cellsparse", "", "Some ``Item``\\ s, and ``Run``."]
