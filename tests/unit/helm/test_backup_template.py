"""templates/backup.yaml."""

from support.helm import names, one, refusal, render

NAME = "lab-cellsparse-backup"
POSTGRESQL = {"database": {"kind": "postgresql"}}
ON = {**POSTGRESQL, "backup": {"enabled": True, "url": "s3://backups/lab"}}


def job(values):
    return one(render(values), "CronJob", NAME)["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def variables(values):
    return {each["name"]: each.get("value") for each in job(values)["containers"][0]["env"]}


def test_it_is_off_by_default():
    assert names(render(POSTGRESQL), "CronJob") == []


def test_it_runs_the_orchestrators_command_every_night():
    spec = one(render(ON), "CronJob", NAME)["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("30 2 * * *", "Forbid")
    assert job(ON)["containers"][0]["args"] == ["backup"]
    found = variables(ON)
    assert found["CELLSPARSE_BACKUP_STORE_URL"] == "s3://backups/lab"
    assert "CELLSPARSE_BACKUP_S3_ENDPOINT" not in found  # the store's server, with its keys
    assert "CELLSPARSE_BACKUP_SECRETS_DIR" not in found
    assert found["CELLSPARSE_SECRETS_DIR"] == "/run/cellsparse/credentials"


def test_another_server_has_its_own_keys():
    other = {"endpoint": "s3.example.org:9000", "secure": False, "existingSecret": "backup-keys"}
    values = {**ON, "backup": {**ON["backup"], **other}}
    found = variables(values)
    assert found["CELLSPARSE_BACKUP_S3_ENDPOINT"] == "s3.example.org:9000"
    assert found["CELLSPARSE_BACKUP_S3_SECURE"] == "false"
    secret = next(each["secret"] for each in job(values)["volumes"] if each["name"] == "backup")
    assert secret["secretName"] == "backup-keys"
    assert [each["path"] for each in secret["items"]] == [
        "cellsparse_backup_s3_access_key",
        "cellsparse_backup_s3_secret_key",
    ]
    policy = one(render(values), "NetworkPolicy", "lab-cellsparse-store")
    assert policy["spec"]["egress"][0]["ports"] == [{"port": 9000}]


def test_old_snapshots_stay_unless_told_otherwise():
    assert not {"CELLSPARSE_BACKUP_KEEP", "CELLSPARSE_BACKUP_KEEP_DAYS"} & variables(ON).keys()
    found = variables({**ON, "backup": {**ON["backup"], "keep": 7, "keepDays": 30}})
    assert (found["CELLSPARSE_BACKUP_KEEP"], found["CELLSPARSE_BACKUP_KEEP_DAYS"]) == ("7", "30")


def test_the_policies_let_it_reach_store_and_database():
    for name in ("store", "database"):
        policy = one(render(ON), "NetworkPolicy", f"lab-cellsparse-{name}")
        assert "backup" in policy["spec"]["podSelector"]["matchExpressions"][0]["values"]


def test_what_it_cannot_do_is_refused():
    assert "backup.enabled needs database.kind" in refusal({"backup": ON["backup"]})
    assert "backup.url is empty" in refusal({**POSTGRESQL, "backup": {"enabled": True}})
