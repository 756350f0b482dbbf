"""Settings: what the environment says, or one sentence about what is wrong with it."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from cellsparse_common.config.settings import ServerSettings, StoreSettings, load
from cellsparse_common.errors import InvalidArgument


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CELLSPARSE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home dir"))
    monkeypatch.chdir(tmp_path)


def test_defaults_are_the_embedded_ones(tmp_path: Path) -> None:
    settings = load(ServerSettings)
    assert settings.store_url == (tmp_path / "home dir" / ".cellsparse" / "store").as_uri()
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 0, "INFO")
    assert not (tmp_path / "home dir").exists(), "reading settings makes nothing"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STORE_URL": "s3://bucket", "S3_ENDPOINT": "store:9000", "S3_SECURE": "false", "S3_PATH_STYLE": "0",
        "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "b", "S3_CA_BUNDLE": "/ca.pem", "PORT": "50051", "LOG_LEVEL": "debug",
        "DRAIN_SECONDS": "2.5",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"CELLSPARSE_{name}", value)
    settings = load(ServerSettings)
    assert (settings.store_url, settings.s3_endpoint) == ("s3://bucket", "store:9000")
    assert (settings.s3_secure, settings.s3_path_style) == (False, False)
    assert settings.s3_secret_key.get_secret_value() == "b"
    assert settings.s3_ca_bundle == Path("/ca.pem")
    assert (settings.port, settings.log_level, settings.drain_seconds) == (50051, "DEBUG", 2.5)


def test_given_values_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSPARSE_PORT", "1")
    assert load(ServerSettings, port=2).port == 2


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSPARSE_S3_CA_BUNDLE", "")
    monkeypatch.setenv("CELLSPARSE_PORT", "")
    settings = load(ServerSettings)
    assert (settings.s3_ca_bundle, settings.port) == (None, 0)


def test_every_bad_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSPARSE_PORT", "seventy")
    monkeypatch.setenv("CELLSPARSE_WORKERS", "0")
    monkeypatch.setenv("CELLSPARSE_LOG_LEVEL", "loud")
    with pytest.raises(InvalidArgument) as caught:
        load(ServerSettings)
    message = caught.value.message
    assert "CELLSPARSE_PORT is 'seventy'" in message
    assert "CELLSPARSE_WORKERS is '0': input should be greater than or equal to 1." in message
    assert "CELLSPARSE_LOG_LEVEL" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"), ("PORT", "-1"), ("MAX_MESSAGE_MIB", "2048"), ("MAX_PIXELS", "0"), ("MAX_FILE_MIB", "0"),
        ("DRAIN_SECONDS", "-1"), ("OWNER_PID", "0"), ("S3_SECURE", "perhaps"), ("S3_REGION", "a b"),
    ],
)  # fmt: skip
def test_ranges_hold(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CELLSPARSE_{name}", value)
    with pytest.raises(InvalidArgument, match=f"CELLSPARSE_{name} is '{value}'"):
        load(ServerSettings)


@pytest.mark.parametrize("name", ["S3_ACCESS_KEY", "S3_SECRET_KEY"])
def test_half_a_pair_of_keys_is_rejected_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"CELLSPARSE_{name}", "hunter2")
    with pytest.raises(InvalidArgument, match="together, or neither") as caught:
        load(StoreSettings)
    assert "hunter2" not in caught.value.message


def test_secrets_are_not_shown() -> None:
    settings = load(StoreSettings, s3_access_key="a", s3_secret_key="hunter2")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
    with pytest.raises(InvalidArgument) as caught:
        load(StoreSettings, s3_secret_key=["hunter2"])
    assert "hunter2" not in caught.value.message


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(ServerSettings).port = 1  # type: ignore[misc]


def test_every_field_is_documented() -> None:
    undocumented = [name for name, field in ServerSettings.model_fields.items() if not field.description]
    assert not undocumented


def test_a_service_adds_fields_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnSettings(ServerSettings):
        queue: int = Field(default=1, ge=1)
        """Places, 1 and more."""

    monkeypatch.setenv("CELLSPARSE_QUEUE", "none")
    with pytest.raises(InvalidArgument, match="CELLSPARSE_QUEUE is 'none'"):
        load(OwnSettings)
