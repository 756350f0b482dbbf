"""templates/orchestrator.yaml."""

from support.helm import container, names, one, pod, refusal, render, variables

NAME = "lab-cellsparse-orchestrator"


def deployment(**values):
    return one(render(values), "Deployment", NAME)


def test_one_at_a_time_since_it_owns_the_queue():
    spec = deployment()["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_it_is_told_where_everything_is():
    assert variables(deployment(orchestrator={"slots": 3}, tls={"kind": "none"})) == {
        "CELLSPARSE_AUTH": "tokens",
        "CELLSPARSE_INSECURE": "1",
        "CELLSPARSE_CLUSTER_FILE": "/etc/cellsparse/cluster.yaml",
        "CELLSPARSE_HOME": "/var/lib/cellsparse",
        "CELLSPARSE_HOST": "0.0.0.0",  # noqa: S104 - port-forward comes in by loopback, Services by the pod's address
        "CELLSPARSE_LAUNCHER": "kubernetes",
        "CELLSPARSE_METRICS_PORT": "9090",
        "CELLSPARSE_PORT": "50050",
        "CELLSPARSE_S3_ENDPOINT": "lab-cellsparse-minio.imaging.svc:9000",
        "CELLSPARSE_S3_PATH_STYLE": "true",
        "CELLSPARSE_S3_REGION": "us-east-1",
        "CELLSPARSE_S3_SECURE": "false",
        "CELLSPARSE_SECRETS_DIR": "/run/cellsparse/credentials",
        "CELLSPARSE_SLOTS": "3",
        "CELLSPARSE_SPARSIFIER": "lab-cellsparse-sparsifier.imaging.svc:50051",
        "CELLSPARSE_STORE_URL": "s3://cellsparse",
        "CELLSPARSE_STS_ENDPOINT": "http://lab-cellsparse-minio.imaging.svc:9000",
        "CELLSPARSE_STS_ROLE_ARN": "",
        "CELLSPARSE_TRAINERS": "cellpose=lab-cellsparse-cellpose.imaging.svc:50052,"
        "stardist=lab-cellsparse-stardist.imaging.svc:50052,unet=lab-cellsparse-unet.imaging.svc:50052,"
        "cellpose_sam=lab-cellsparse-cellpose-sam.imaging.svc:50052",
    }


def test_variables_of_ones_own_win():
    given = {"CELLSPARSE_HOST": "127.0.0.1", "CELLSPARSE_LOG_LEVEL": "DEBUG"}
    found = variables(deployment(orchestrator={"environment": given}))
    assert {name: found[name] for name in given} == given


def test_trainers_without_warm_replicas_have_no_address():
    trainers = [{"backend": "cellpose", "warmReplicas": 0}, {"backend": "unet"}]
    assert variables(deployment(trainers=trainers))["CELLSPARSE_TRAINERS"] == (
        "unet=lab-cellsparse-unet.imaging.svc:50052"
    )


def test_sqlite_lives_on_a_volume_that_goes_with_the_release():
    objects = render({"orchestrator": {"storage": "3Gi", "storageClass": "fast"}})
    claim = one(objects, "PersistentVolumeClaim", NAME)
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "3Gi"}},
    }
    assert "annotations" not in claim["metadata"]
    home = {"name": "home", "persistentVolumeClaim": {"claimName": NAME}}
    assert home in pod(one(objects, "Deployment", NAME))["volumes"]


def test_sqlite_is_kept_when_data_is_kept():
    claim = one(render({"data": {"keep": True}}), "PersistentVolumeClaim", NAME)
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_with_postgresql_there_is_no_volume_and_the_url_is_a_file():
    objects = render({"database": {"kind": "postgresql"}})
    assert NAME not in names(objects, "PersistentVolumeClaim")
    volumes = {volume["name"]: volume for volume in pod(one(objects, "Deployment", NAME))["volumes"]}
    assert volumes["home"] == {"name": "home", "emptyDir": {"sizeLimit": "20Gi"}}
    secrets = [source["secret"] for source in volumes["credentials"]["projected"]["sources"]]
    assert secrets[1] == {
        "name": "lab-cellsparse-database",
        "items": [{"key": "url", "path": "cellsparse_database_url"}],
    }


def test_an_external_database_is_reached_by_the_given_secret():
    volumes = pod(deployment(database={"kind": "external", "existingSecret": "lab-sql"}))["volumes"]
    credentials = next(volume for volume in volumes if volume["name"] == "credentials")
    assert credentials["projected"]["sources"][1]["secret"]["name"] == "lab-sql"


def test_new_trainer_settings_restart_it():
    before = deployment()["spec"]["template"]["metadata"]["annotations"]
    again = deployment(sparsifier={"replicas": 2})["spec"]["template"]["metadata"]["annotations"]
    after = deployment(trainerDefaults={"sharedMemory": "2Gi"})["spec"]["template"]["metadata"]["annotations"]
    assert before == again
    assert before != after


def test_placement_and_image_are_values():
    taint = {"key": "dedicated", "operator": "Exists"}
    found = deployment(
        images={"registry": "r.example/x", "tag": "9", "pullPolicy": "Always", "pullSecrets": ["a", "b"]},
        orchestrator={"nodeSelector": {"disk": "ssd"}, "tolerations": [taint], "resources": {"limits": {"cpu": 1}}},
    )
    assert container(found)["image"] == "r.example/x/cellsparse-orchestrator:9"
    assert container(found)["imagePullPolicy"] == "Always"
    assert container(found)["resources"]["limits"] == {"cpu": 1, "memory": "2Gi"}
    assert pod(found)["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert pod(found)["nodeSelector"] == {"disk": "ssd"}
    assert pod(found)["tolerations"] == [taint]
    assert container(deployment(orchestrator={"image": "mine@sha256:0"}))["image"] == "mine@sha256:0"


def test_only_it_has_a_token():
    objects = render({"database": {"kind": "postgresql"}})
    workloads = [item for item in objects if item["kind"] in ("Deployment", "StatefulSet", "Job", "Pod")]
    with_token = [item["metadata"]["name"] for item in workloads if pod(item)["automountServiceAccountToken"]]
    assert with_token == [NAME]


def test_the_service():
    service = one(render({"orchestrator": {"serviceType": "NodePort"}}), "Service", NAME)
    assert service["spec"] == {
        "type": "NodePort",
        "selector": {"app.kubernetes.io/name": "orchestrator", "app.kubernetes.io/instance": "lab-cellsparse"},
        "ports": [
            {"name": "grpc", "port": 50050, "targetPort": "grpc", "appProtocol": "grpc"},
            {"name": "metrics", "port": 9090, "targetPort": "metrics"},
        ],
    }


def test_several_stand_by_with_postgresql_and_are_refused_with_sqlite():
    spec = deployment(orchestrator={"replicas": 2}, database={"kind": "postgresql"})["spec"]
    assert spec["replicas"] == 2
    # One that stands by is never ready: neither a rollout nor `helm --wait` may wait for it.
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}}
    assert "orchestrator.replicas is 2: more than 1 needs database.kind postgresql" in refusal(
        {"orchestrator": {"replicas": 2}}
    )
    for wrong in (0, 4, "2"):
        assert "replicas" in refusal({"orchestrator": {"replicas": wrong}, "database": {"kind": "postgresql"}})


def test_it_is_ready_while_it_leads_and_lives_in_any_case():
    """The kubelet asks over gRPC, and with TLS where metrics are."""
    plain = container(deployment(tls={"kind": "none"}))
    assert plain["readinessProbe"]["grpc"] == {"port": 50050, "service": "answering"}
    assert plain["livenessProbe"]["grpc"] == plain["startupProbe"]["grpc"] == {"port": 50050}
    tls = container(deployment(tls={"kind": "secret", "secret": "ours"}))
    assert tls["readinessProbe"]["httpGet"] == {"path": "/answering", "port": "metrics"}
    assert tls["livenessProbe"]["httpGet"] == tls["startupProbe"]["httpGet"] == {"path": "/health", "port": "metrics"}
    assert "metrics" in [port["name"] for port in tls["ports"]]
