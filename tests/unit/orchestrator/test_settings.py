"""The orchestrator's settings from the environment."""

import pytest

from cellsparse_common.config.settings import load
from cellsparse_common.errors import InvalidArgument
from cellsparse_orchestrator.launchers.local import _command
from cellsparse_orchestrator.settings import OrchestratorSettings


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in OrchestratorSettings.model_fields:
        monkeypatch.delenv(f"CELLSPARSE_{name.upper()}", raising=False)
    return monkeypatch


def test_all_state_is_in_the_home_folder(environment, tmp_path):
    environment.setenv("CELLSPARSE_HOME", str(tmp_path / "here"))
    settings = load(OrchestratorSettings)
    assert settings.home == tmp_path / "here"
    assert settings.store_url == f"file://{tmp_path}/here/store"
    assert settings.database_url.get_secret_value() == f"sqlite:///{tmp_path}/here/cellsparse.db"
    assert list(settings.trainer_modules) == ["cellpose", "cellpose_sam", "stardist", "unet"]


def test_given_urls_win(environment):
    environment.setenv("CELLSPARSE_STORE_URL", "s3://bucket/prefix")
    environment.setenv("CELLSPARSE_DATABASE_URL", "postgresql://host/name")
    settings = load(OrchestratorSettings)
    assert settings.store_url == "s3://bucket/prefix"
    assert settings.database_url.get_secret_value() == "postgresql://host/name"


def test_the_database_is_not_shown(environment, tmp_path):
    (tmp_path / "cellsparse_database_url").write_text("postgresql+psycopg://me:hunter2@host/name\n")
    environment.setenv("CELLSPARSE_SECRETS_DIR", str(tmp_path))
    settings = load(OrchestratorSettings)
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://me:hunter2@host/name"
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
    environment.setenv("CELLSPARSE_SLOTS", "none")
    with pytest.raises(InvalidArgument) as caught:
        load(OrchestratorSettings)
    assert "hunter2" not in str(caught.value)


def test_a_fourth_backend_is_configuration(environment):
    environment.setenv("CELLSPARSE_TRAINER_MODULES", "unet=cellsparse_unet, other=other_package.server")
    environment.setenv("CELLSPARSE_TRAINERS", "unet=10.0.0.1:5000,other=[::1]:6000")
    settings = load(OrchestratorSettings)
    assert settings.trainer_modules == {"unet": "cellsparse_unet", "other": "other_package.server"}
    assert settings.trainers == {"unet": "10.0.0.1:5000", "other": "[::1]:6000"}


@pytest.mark.parametrize(
    ("name", "value"), [("TRAINERS", "unet"), ("TRAINER_MODULES", "=x"), ("SLOTS", "0"), ("LAUNCHER", "magic")]
)
def test_wrong_values_are_named(environment, name, value):
    environment.setenv(f"CELLSPARSE_{name}", value)
    with pytest.raises(InvalidArgument, match=f"CELLSPARSE_{name}"):
        load(OrchestratorSettings)


def test_the_cluster_needs_a_file_and_more_patience(environment):
    environment.setenv("CELLSPARSE_LAUNCHER", "kubernetes")
    with pytest.raises(InvalidArgument, match="CELLSPARSE_CLUSTER_FILE"):
        load(OrchestratorSettings)
    environment.setenv("CELLSPARSE_CLUSTER_FILE", "/etc/cellsparse/cluster.yaml")
    assert load(OrchestratorSettings).lost_seconds == 30
    environment.setenv("CELLSPARSE_LOST_SECONDS", "5")
    assert load(OrchestratorSettings).lost_seconds == 5


def test_trainings_of_the_local_stack_share_targets_unless_told_where(environment, tmp_path):
    environment.setenv("CELLSPARSE_HOME", str(tmp_path))
    environment.delenv("CELLSPARSE_TARGET_DIR", raising=False)
    folder = _command("cellpose", "cellsparse_cellpose", load(OrchestratorSettings)).environment[
        "CELLSPARSE_TARGET_DIR"
    ]
    assert folder == str(tmp_path / "targets" / "cellpose")
    environment.setenv("CELLSPARSE_TARGET_DIR", "/elsewhere")
    command = _command("cellpose", "cellsparse_cellpose", load(OrchestratorSettings))
    assert command.environment["CELLSPARSE_TARGET_DIR"] == "/elsewhere"


PROVIDER = {"oidc_issuer": "https://id.example", "oidc_audience": "cellsparse", "auth": "tokens"}


def test_an_identity_provider_needs_an_audience_tls_and_tokens():
    assert OrchestratorSettings(**PROVIDER).oidc_roles["cellsparse-admin"] == "admin"
    assert OrchestratorSettings(**PROVIDER, oidc_roles="staff=annotator").oidc_roles == {"staff": "annotator"}
    assert OrchestratorSettings(**{**PROVIDER, "oidc_issuer": "http://127.0.0.1:8080/x"})
    for change, sentence in (
        ({"oidc_audience": ""}, "oidc_audience is missing"),
        ({"auth": "off"}, "auth is off"),
        ({"oidc_issuer": "http://id.example"}, "https, or http on this machine"),
        ({"oidc_roles": "staff=owner"}, "'owner' is not known; allowed: reader, annotator, admin"),
    ):
        with pytest.raises(ValueError, match=sentence):
            OrchestratorSettings(**{**PROVIDER, **change})


def test_only_given_trainers_may_sleep(environment):
    environment.setenv("CELLSPARSE_LAUNCHER", "static")
    environment.setenv("CELLSPARSE_TRAINERS", "unet=host:1,stardist=host:2")
    environment.setenv("CELLSPARSE_SCALE_TO_ZERO", "unet, stardist")
    assert load(OrchestratorSettings).scale_to_zero == ("unet", "stardist")
    environment.setenv("CELLSPARSE_SCALE_TO_ZERO", "cellpose")
    with pytest.raises(InvalidArgument, match="scale_to_zero names 'cellpose'; allowed: unet, stardist"):
        load(OrchestratorSettings)
