"""Tokens from the command line on, what belongs to whom, and the record of changes, with a real orchestrator."""

import json
import sqlite3
import stat
from datetime import UTC, datetime, timedelta

import httpx
import psutil
import pytest
from support.access import add_things
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, refused, tiny_items, until

import cellsparse
from cellsparse.cli.app import run
from cellsparse.cli.exits import Exit
from cellsparse.errors import InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from cellsparse_common.rpc.channel import open_channel
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import (
    access_pb2,
    dataset_pb2,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    project_pb2,
    project_pb2_grpc,
    trainer_pb2,
)


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    home = tmp_path_factory.mktemp("tokens") / "home"
    with Orchestrator(home, CELLSPARSE_LAUNCHER="static", CELLSPARSE_AUTH="tokens") as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch, orchestrator, tmp_path):
    """Commands find the orchestrator by its home folder, which holds an administrator's token."""
    for name in ("CELLSPARSE_ADDRESS", "CELLSPARSE_TOKEN", "CELLSPARSE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CELLSPARSE_HOME", str(orchestrator.home))


@pytest.fixture
def admin(orchestrator):
    return (orchestrator.home / "admin-token").read_text().strip()


def command(capsys, *arguments, code=Exit.OK):
    capsys.readouterr()
    assert run([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    return json.loads(captured.out) if code == Exit.OK else captured.err


def create(capsys, *more):
    return command(capsys, "token", "create", *more)


def client(orchestrator, secret):
    return cellsparse.Client(orchestrator.address, token=secret)


def test_a_token_is_made_used_listed_and_revoked(orchestrator, capsys, tmp_path, monkeypatch):
    made = create(capsys, "--role", "annotator", "--project", "nuclei", "--make-project", "--days", "90")
    assert made["role"] == "annotator"
    secret = made.pop("secret")
    with client(orchestrator, secret) as mine:
        caller = mine.caller()
        assert (caller.authentication, caller.project_id) == (True, made["project_id"])
    listed = {each["id"]: each for each in command(capsys, "token", "list")}
    assert "used_at" in listed[made["id"]]
    assert secret not in json.dumps(listed)
    with sqlite3.connect(orchestrator.home / "cellsparse.db") as connection:
        assert not any(secret in line for line in connection.iterdump())
    assert secret not in orchestrator.log.read_text()

    file = tmp_path / "token"
    file.write_text(f"{secret}\n")
    assert run(["--token-file", str(file), "token", "list"]) == Exit.REFUSED
    error = capsys.readouterr().err
    assert "takes the role admin" in error
    assert secret not in error
    monkeypatch.delenv("CELLSPARSE_TOKEN_FILE")
    command(capsys, "token", "revoke", made["id"])
    with client(orchestrator, secret) as mine, pytest.raises(Unauthenticated, match="not known here, or was revoked"):
        list(mine.datasets())
    command(capsys, "token", "revoke", "token-of-nobody", code=Exit.NOT_FOUND)


def test_a_token_ends(orchestrator, capsys):
    made = create(capsys, "--role", "admin", "--days", "1")
    with sqlite3.connect(orchestrator.home / "cellsparse.db") as connection:
        past = datetime.now(UTC) - timedelta(days=1)
        connection.execute("UPDATE tokens SET expires_at = ? WHERE id = ?", (f"{past:%Y-%m-%d %H:%M:%S}", made["id"]))
    with client(orchestrator, made["secret"]) as mine, pytest.raises(Unauthenticated, match=r"ended on \d{4}-"):
        list(mine.datasets())


def test_who_needs_a_project_names_one(capsys):
    assert "project is missing" in command(capsys, "token", "create", "--role", "reader", code=Exit.USAGE)
    error = command(capsys, "token", "create", "--role", "reader", "--project", "nowhere", code=Exit.NOT_FOUND)
    assert "There is no project 'nowhere'" in error
    for _ in range(2):
        create(capsys, "--role", "reader", "--project", "twice", "--make-project")
    error = command(capsys, "token", "create", "--role", "reader", "--project", "twice", code=Exit.USAGE)
    assert "Several projects are named 'twice'" in error


def test_login_keeps_a_token_that_nobody_else_may_read(orchestrator, capsys, tmp_path, monkeypatch, admin):
    monkeypatch.setenv("CELLSPARSE_HOME", str(tmp_path / "client"))
    monkeypatch.setenv("CELLSPARSE_ADDRESS", orchestrator.address)
    assert "wants a token" in command(capsys, "status", code=Exit.REFUSED)
    file = tmp_path / "token"
    file.write_text(admin)
    assert run(["login", str(file)]) == Exit.OK
    assert admin not in capsys.readouterr().out
    kept = tmp_path / "client" / "logins.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert command(capsys, "token", "list") is not None
    kept.chmod(0o644)
    assert "others may read it" in command(capsys, "token", "list", code=Exit.USAGE)
    kept.chmod(0o600)
    assert run(["logout"]) == Exit.OK
    assert "wants a token" in command(capsys, "token", "list", code=Exit.REFUSED)
    file.write_text("two words")
    assert "holds no token" in command(capsys, "login", str(file), code=Exit.USAGE)


def test_a_token_goes_nowhere_unencrypted(monkeypatch):
    with pytest.raises(InvalidArgument, match=r"would go to 192\.0\.2\.1:50050 without TLS"):
        cellsparse.Client("192.0.2.1:50050", token="a-token")
    monkeypatch.setenv("CELLSPARSE_INSECURE", "1")
    cellsparse.Client("192.0.2.1:50050", token="a-token").close()


def test_health_and_reflection_are_open(orchestrator):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    answer = health_pb2_grpc.HealthStub(orchestrator.channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(orchestrator.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    names = next(stub.ServerReflectionInfo(iter([asked]), timeout=PATIENCE)).list_services_response.service
    assert "cellsparse.v1.AccessService" in {each.name for each in names}


def test_what_is_made_belongs_to_the_project_that_it_is_made_of(orchestrator, capsys):
    one, two = (create(capsys, "--role", "annotator", "--project", name, "--make-project") for name in ("one", "two"))
    with client(orchestrator, one["secret"]) as mine, client(orchestrator, two["secret"]) as theirs:
        uploaded = mine.create_dataset("mine", [item[:4] for item in as_items()])
        assert [each.id for each in mine.datasets()] == [uploaded.id]
        assert list(theirs.datasets()) == []
        with pytest.raises(NotFound) as missing:
            theirs.dataset("ds-missing")
        with pytest.raises(NotFound) as hidden:
            theirs.dataset(uploaded.id)
        assert hidden.value.message == missing.value.message.replace("ds-missing", uploaded.id)
        # A project of an annotator's belongs to the token's project, and so does what is made from it.
        part = mine.create_project("part")
        with pytest.raises(NotFound):
            theirs.connection.call("GetProject", project_pb2.GetProjectRequest(project_id=part.id))
        listed = mine.connection.call("ListProjects", project_pb2.ListProjectsRequest()).projects
        assert {each.id for each in listed} == {one["project_id"], part.id}
        mine.connection.call("DeleteProject", project_pb2.DeleteProjectRequest(project_id=part.id))
        with pytest.raises(PermissionDenied, match="only an administrator may delete it"):
            mine.connection.call("DeleteProject", project_pb2.DeleteProjectRequest(project_id=one["project_id"]))
    with cellsparse.Client() as admin:
        assert uploaded.id in {each.id for each in admin.datasets()}


def as_items():
    splits = {1: "train", 2: "val", 3: "test"}
    for name, split, image, label in tiny_items():
        yield name, splits[split], image, label


def test_projects_may_choose_the_same_words(orchestrator, capsys):
    tokens = [create(capsys, "--role", "annotator", "--project", name, "--make-project") for name in ("left", "right")]
    seen = []
    for token in tokens:
        with open_channel(orchestrator.address, token=token["secret"]) as channel:
            projects = project_pb2_grpc.ProjectServiceStub(channel)
            asked = project_pb2.GetAliasRequest(backend="unet", name="word")
            assert isinstance(refused(projects.GetAlias, asked), NotFound)
            alias = project_pb2.Alias(backend="unet", name="word", project_id=token["project_id"])
            projects.SetAlias(project_pb2.SetAliasRequest(alias=alias), timeout=PATIENCE)
            seen.append(projects.GetAlias(asked, timeout=PATIENCE).alias.project_id)
            foreign = project_pb2.Alias(
                backend="unet", name="word", project_id=tokens[token is tokens[0]]["project_id"]
            )
            assert isinstance(refused(projects.SetAlias, project_pb2.SetAliasRequest(alias=foreign)), NotFound)
    assert seen == [token["project_id"] for token in tokens]


def test_images_in_the_store_are_below_a_folder_of_the_project(orchestrator, capsys):
    token = create(capsys, "--role", "annotator", "--project", "stored", "--make-project")
    with open_channel(orchestrator.address, token=token["secret"]) as channel:
        projects = project_pb2_grpc.ProjectServiceStub(channel)
        for path in ("plate.zarr", f"{token['project_id']}/plate.zarr"):
            header = project_pb2.AddImageHeader(project_id=token["project_id"], name="plate", stored=path)
            error = refused(projects.AddImage, iter([project_pb2.AddImageRequest(header=header)]))
            assert "holds no OME-Zarr at" in error.message


def test_each_change_is_recorded_and_no_look(orchestrator, capsys):
    token = create(capsys, "--role", "annotator", "--project", "recorded", "--make-project")
    with client(orchestrator, token["secret"]) as mine:
        made = mine.create_dataset("kept", as_items())
        list(mine.datasets())
        with pytest.raises(NotFound):
            mine.connection.call("DeleteDataset", dataset_pb2.DeleteDatasetRequest(dataset_id="ds-missing"))
        with pytest.raises(PermissionDenied):
            mine.create_token("more", "admin")

    def lines():
        capsys.readouterr()
        assert run(["admin", "audit", "--token", token["id"], "--json"]) == Exit.OK
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    # A client asks for and sends its files in several batches.
    found = until(lambda: (told := lines())[:1] and told[0]["method"] == "AccessService/CreateToken" and told)
    told = [(each["method"], each["result"], each["subject"], each["source"]) for each in found]
    assert told[:3] == [
        ("AccessService/CreateToken", "PERMISSION_DENIED", "", "127.0.0.1"),
        ("DatasetService/DeleteDataset", "NOT_FOUND", "dataset_id=ds-missing", "127.0.0.1"),
        ("DatasetService/CreateDatasetFromBlobs", "OK", f"name=kept dataset={made.id}", "127.0.0.1"),
    ]
    assert set(told[3:]) == {
        ("UploadService/SendUploads", "OK", "", "127.0.0.1"),
        ("UploadService/StartUploads", "OK", "", "127.0.0.1"),
    }
    assert run(["admin", "audit", "--project", token["project_id"]]) == Exit.OK
    assert "CreateDatasetFromBlobs name=kept" in capsys.readouterr().out


def test_without_authentication_everybody_may_do_everything(tmp_path):
    with (
        Orchestrator(tmp_path / "home", CELLSPARSE_LAUNCHER="static") as open_to_all,
        cellsparse.Client(open_to_all.address, token="") as anybody,
    ):
        assert anybody.caller() == access_pb2.GetCallerResponse()
        project = anybody.create_project("free")
        made = anybody.create_token("for later", "reader", project=project.id)
        assert made.token.project_id == project.id
        assert list(anybody.changes()) == []
        assert not (open_to_all.home / "admin-token").exists()


def test_a_repeated_request_of_another_project_tells_nothing(orchestrator, capsys):
    tokens = [create(capsys, "--role", "annotator", "--project", name, "--make-project") for name in ("red", "blue")]
    errors = []
    for token in tokens:
        with open_channel(orchestrator.address, token=token["secret"]) as channel:
            request = orchestrator_pb2.CreateRunRequest(
                request_id="same",
                dataset_id="ds-missing",
                settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings()),
            )
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
            errors.append(refused(stub.CreateRun, request).message)
    assert errors[0] == errors[1]


def test_a_study_starts_from_no_model_of_another_project(orchestrator, capsys):
    ones, others = (
        create(capsys, "--role", "annotator", "--project", name, "--make-project") for name in ("ours", "theirs")
    )
    database = Database(f"sqlite:///{orchestrator.home / 'cellsparse.db'}")
    hidden = add_things(database, others["project_id"]).ids["model_id"]
    database.close()
    said = []
    with client(orchestrator, ones["secret"]) as mine:
        dataset = mine.create_dataset("labels", as_items())
        for model in (hidden, "run-missing"):
            with pytest.raises(NotFound) as refusal:
                mine.study(dataset.id, backends=["unet"], settings={"initial_model": [model]})
            said.append(refusal.value.message.replace(model, "ID"))
    assert said[0] == said[1]


def test_the_page_of_local_services_asks_for_tokens_too(tmp_path):
    settings = {"CELLSPARSE_AUTH": "tokens", "CELLSPARSE_WEB_PORT": "0"}
    with Orchestrator(tmp_path / "home", **settings) as local:
        token = (local.home / "admin-token").read_text().strip()
        with client(local, token) as admin:

            def page():
                found = [each for each in admin.status().services if each.name == "gateway" and each.healthy]
                return found and f"http://{found[0].address}"

            url = until(page)
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200
        assert httpx.get(f"{url}/api/v1/projects", timeout=PATIENCE).status_code == 401
        shown = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{url}/api/v1/projects", headers=shown, timeout=PATIENCE).status_code == 200
        for process in psutil.Process(local.pid).children(recursive=True):
            assert token not in str(process.environ())
