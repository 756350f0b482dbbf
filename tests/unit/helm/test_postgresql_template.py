"""templates/postgresql.yaml."""

from support.helm import container, names, one, pod, render, variables

NAME = "lab-cellsparse-postgresql"


def rendered(**own):
    return render({"database": {"kind": "postgresql", "postgresql": own}})


def test_there_is_none_unless_asked():
    external = {"database": {"kind": "external", "existingSecret": "sql"}}
    for values in ({}, external):
        assert NAME not in names(render(values), "StatefulSet") + names(render(values), "Service")


def test_image_volume_and_resources_are_values():
    own = {"image": "mirror/pg:1", "storage": "2Gi", "storageClass": "fast", "resources": {"limits": {"memory": "2Gi"}}}
    server = one(rendered(**own), "StatefulSet", NAME)
    assert container(server)["image"] == "mirror/pg:1"
    assert container(server)["resources"]["limits"] == {"memory": "2Gi"}
    (claim,) = server["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"] == {"requests": {"storage": "2Gi"}}
    assert server["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


def test_the_password_is_a_file():
    server = one(rendered(), "StatefulSet", NAME)
    assert variables(server)["POSTGRES_PASSWORD_FILE"] == "/run/database/password"
    volumes = {volume["name"]: volume for volume in pod(server)["volumes"]}
    assert volumes["password"]["secret"]["items"] == [{"key": "password", "path": "password"}]


def test_it_runs_as_the_images_own_user():
    assert pod(one(rendered(), "StatefulSet", NAME))["securityContext"]["runAsUser"] == 999


def test_with_a_read_only_root_all_it_writes_to_is_mounted():
    server = container(one(rendered(), "StatefulSet", NAME))
    writable = {mount["mountPath"] for mount in server["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/lib/postgresql/data", "/tmp", "/var/run/postgresql"}
