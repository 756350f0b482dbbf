"""templates/minio.yaml."""

from support.helm import container, names, one, pod, render, variables

NAME = "lab-cellsparse-minio"
OFF = {"minio": {"enabled": False}, "s3": {"endpoint": "s3.example", "existingSecret": "keys"}}


def test_off_leaves_nothing_of_it():
    objects = render({**OFF, "tls": {"kind": "none"}})
    assert all("minio" not in item["metadata"]["name"] for item in objects)
    assert names(objects, "Secret") == ["lab-cellsparse-admin"]
    store = variables(one(objects, "Deployment", "lab-cellsparse-orchestrator"))
    assert (store["CELLSPARSE_S3_ENDPOINT"], store["CELLSPARSE_S3_SECURE"]) == ("s3.example", "true")


def test_image_and_volume_are_values():
    own = {"image": "mirror/minio:1", "storage": "7Gi", "storageClass": "fast"}
    server = one(render({"minio": own}), "StatefulSet", NAME)
    assert container(server)["image"] == "mirror/minio:1"
    (claim,) = server["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"] == {"requests": {"storage": "7Gi"}}


def test_its_volume_goes_with_the_release_unless_data_is_kept():
    policy = one(render(), "StatefulSet", NAME)["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Delete", "whenScaled": "Retain"}
    kept = one(render({"data": {"keep": True}}), "StatefulSet", NAME)
    assert kept["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


def test_keys_come_from_the_secret_that_everyone_reads():
    for values, secret in (({}, "lab-cellsparse-store"), ({"s3": {"existingSecret": "keys"}}, "keys")):
        found = variables(one(render(values), "StatefulSet", NAME))
        assert found["MINIO_ROOT_USER"] == {"secretKeyRef": {"name": secret, "key": "accessKey"}}
        assert found["MINIO_ROOT_PASSWORD"] == {"secretKeyRef": {"name": secret, "key": "secretKey"}}


def test_it_makes_the_bucket_and_not_the_prefix():
    server = one(render({"s3": {"bucket": "lab/cells", "region": "eu-central-1"}}), "StatefulSet", NAME)
    assert variables(server)["BUCKET"] == "lab"
    assert variables(server)["MINIO_REGION"] == "eu-central-1"


def test_with_tls_it_serves_the_same_certificate_and_is_spoken_to_by_tls():
    objects = render({"tls": {"kind": "secret", "secret": "ours"}})
    server = one(objects, "StatefulSet", NAME)
    volumes = {volume["name"]: volume for volume in pod(server)["volumes"]}
    assert volumes["certs"]["secret"]["secretName"] == "ours"
    assert container(server)["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    sparsifier = one(objects, "Deployment", "lab-cellsparse-sparsifier")
    assert variables(sparsifier)["CELLSPARSE_S3_SECURE"] == "true"
    assert variables(sparsifier)["CELLSPARSE_S3_CA_BUNDLE"] == "/run/cellsparse/ca/ca.crt"
    authority = next(volume for volume in pod(sparsifier)["volumes"] if volume["name"] == "ca")
    assert authority["secret"]["secretName"] == "ours"
