"""What requests say before anything is called: trainings, events, browsers of other sites, settings."""

import asyncio
import re

import pytest

from cellsparse_common.config.settings import load
from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.answers import accepts, attachment
from cellsparse_gateway.middleware import OwnSite, pattern
from cellsparse_gateway.routes.runs import after_sequence
from cellsparse_gateway.routes.training import training_request
from cellsparse_gateway.schemas import field_schema, message_schema
from cellsparse_gateway.settings import GatewaySettings
from cellsparse_proto.v1 import project_pb2, trainer_pb2


def test_a_training_takes_shared_and_own_settings_side_by_side():
    body = {"backend": "unet", "preset": "paper", "initial_model": "m-1", "settings": {"steps": 5, "base_channels": 8}}
    request = training_request("pr-1", {**body, "val_image_ids": ["im-2"], "name": "n"})
    assert (request.dataset.project_id, list(request.dataset.val_image_ids), request.name) == ("pr-1", ["im-2"], "n")
    settings = request.settings
    assert (settings.steps, settings.unet.base_channels, settings.initial_model) == (5, 8, "m-1")
    assert settings.preset == trainer_pb2.PRESET_PAPER
    nested = training_request("pr-1", {"backend": "unet", "settings": {"unet": {"base_channels": 8}}})
    assert nested.settings.unet.base_channels == 8
    assert training_request("pr-1", {"backend": "stardist"}).settings.WhichOneof("backend") == "stardist"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "must be a JSON object"),
        ({}, "backend is None; allowed: cellpose, stardist, unet"),
        ({"backend": "unet", "epochs": 1}, "There is no field 'epochs'"),
        ({"backend": "unet", "settings": {"n_rays": 1}}, "unet has no setting 'n_rays'"),
        ({"backend": "unet", "settings": []}, None),
        ({"backend": "unet", "settings": [1]}, "settings must be"),
        ({"backend": "unet", "settings": {"unet": 1}}, "settings.unet must be"),
        ({"backend": "unet", "settings": {"stardist": {}}}, "does not fit"),
        ({"backend": "unet", "preset": "slow"}, "allowed: fast, paper"),
        ({"backend": "unet", "preset": 5}, "allowed: fast, paper"),
        ({"backend": "unet", "settings": {"steps": "many"}}, "does not fit"),
    ],
)
def test_a_training_that_does_not_fit_is_one_sentence(body, sentence):
    if sentence is None:
        assert training_request("pr-1", body)
        return
    with pytest.raises(InvalidArgument, match=re.escape(sentence)):
        training_request("pr-1", body)


def test_a_repeated_connection_goes_on_after_its_last_event():
    assert after_sequence(None, "") == 0
    assert after_sequence(5, "") == 5
    assert after_sequence(5, "7") == 7
    assert after_sequence(5, "nonsense") == after_sequence(5, "²") == 5
    assert after_sequence(None, "9" * 30) == 2**63 - 1


def asked(method: str, hosts: frozenset[str] = frozenset(), **headers: str) -> int:
    """The status of a request that `OwnSite` judges; 200 if it lets it pass."""
    sent: list[dict] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    names = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": "http", "method": method, "headers": [(k.encode(), v.encode()) for k, v in names.items()]}
    asyncio.run(OwnSite(app, hosts)(scope, None, send))
    return sent[0]["status"]


def test_pages_of_other_sites_change_nothing():
    assert asked("POST") == 200  # no browser
    assert asked("POST", origin="http://127.0.0.1:8000") == 200
    assert asked("POST", origin="https://x.example", host="x.example") == 200
    assert asked("POST", origin="https://front.example", sec_fetch_site="same-origin") == 200  # behind a proxy
    assert asked("POST", origin="http://evil.example") == 403
    assert asked("DELETE", origin="null") == 403
    assert asked("POST", origin="http://127.0.0.1:8000", sec_fetch_site="cross-site") == 403
    assert asked("GET", origin="http://evil.example") == 200  # it may not read the answer


def test_on_loopback_no_foreign_name_leads_here():
    hosts = GatewaySettings().host_names()
    assert asked("GET", hosts) == 200
    assert asked("GET", hosts, host="localhost:1") == asked("GET", hosts, host="[::1]:8000") == 200
    assert asked("GET", hosts, host="evil.example") == asked("GET", hosts, host="") == 421
    assert GatewaySettings(host="0.0.0.0").host_names() == frozenset()  # noqa: S104
    assert GatewaySettings(hosts="A.example, b").host_names() == {"a.example", "b"}


def test_settings_come_in_pairs(monkeypatch):
    monkeypatch.setenv("CELLSPARSE_GATEWAY_TLS_CERT", "a.pem")
    with pytest.raises(InvalidArgument, match="must be given together"):
        load(GatewaySettings)
    monkeypatch.setenv("CELLSPARSE_GATEWAY_TLS_CERT", "")
    monkeypatch.setenv("CELLSPARSE_GATEWAY_PORT", "70000")
    with pytest.raises(InvalidArgument, match="CELLSPARSE_GATEWAY_PORT is '70000'"):
        load(GatewaySettings)


def test_addresses_are_counted_by_their_pattern():
    scope = {"path": "/api/v1/images/i/tiles/0/1/0", "route": object()}
    scope["path_params"] = {"image": "i", "level": 0, "x": 1, "y": 0}
    assert pattern(scope) == "/api/v1/images/{image}/tiles/{level}/{x}/{y}"
    assert pattern({"path": "/nowhere"}) == "other"


def test_names_of_files_are_harmless():
    assert attachment('a"b/ü\n.tif') == {"Content-Disposition": 'attachment; filename="a_b___.tif"'}


def test_codings():
    from starlette.datastructures import Headers

    assert accepts(Headers({"accept-encoding": "gzip, deflate;q=0.5"}), "deflate")
    assert accepts(Headers({"accept-encoding": "*"}), "deflate")
    assert not accepts(Headers({"accept-encoding": "gzip, deflate;q=0"}), "deflate")
    assert not accepts(Headers({}), "deflate")


def test_schemas_say_the_field_rules():
    patch = message_schema(project_pb2.LabelPatch.DESCRIPTOR)["properties"]
    assert patch["width"] == {"type": "integer", "minimum": 1, "maximum": 65536}
    assert patch["data"] == {"type": "string", "contentEncoding": "base64"}
    settings = trainer_pb2.TrainingSettings.DESCRIPTOR.fields_by_name
    assert field_schema(settings["learning_rate"]) == {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0}
    assert field_schema(settings["crop_size"])["multipleOf"] == 16
    assert field_schema(trainer_pb2.StardistSettings.DESCRIPTOR.fields_by_name["grid"])["enum"] == [1, 2, 4]
    rename = message_schema(project_pb2.RenameProjectRequest.DESCRIPTOR, without=["project_id"])
    assert rename["required"] == ["name"]
    assert list(rename["properties"]) == ["name"]
    identifier = message_schema(project_pb2.GetLabelTileRequest.DESCRIPTOR)["properties"]["layer_id"]["pattern"]
    assert re.fullmatch(identifier, "")
    assert not re.fullmatch(identifier, "Upper")
