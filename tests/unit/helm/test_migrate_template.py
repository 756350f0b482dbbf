"""templates/migrate.yaml."""

from support.helm import container, names, one, pod, render, variables

NAME = "lab-cellsparse-migrate"
EXTERNAL = {"database": {"kind": "external", "existingSecret": "sql"}}


def hooks(values):
    return one(render(values), "Job", NAME)["metadata"]["annotations"]["helm.sh/hook"]


def test_sqlite_needs_no_hook():
    assert names(render(), "Job") == []


def test_a_database_that_exists_is_migrated_before_anything_else():
    assert hooks(EXTERNAL) == "pre-install,pre-upgrade"


def test_one_of_our_own_once_it_runs():
    assert hooks({"database": {"kind": "postgresql"}}) == "post-install,pre-upgrade"


def test_it_is_the_orchestrators_command_with_the_url_as_a_file():
    job = one(render({**EXTERNAL, "orchestrator": {"image": "mine"}}), "Job", NAME)
    assert container(job)["image"] == "mine"
    assert container(job)["args"] == ["migrate"]
    assert variables(job) == {"CELLSPARSE_SECRETS_DIR": "/run/cellsparse/credentials"}
    secret = next(volume["secret"] for volume in pod(job)["volumes"] if "secret" in volume)
    assert (secret["secretName"], secret["items"]) == ("sql", [{"key": "url", "path": "cellsparse_database_url"}])


def test_it_ends():
    spec = one(render(EXTERNAL), "Job", NAME)["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (6, 600)


def test_the_policies_let_it_reach_the_database():
    job = one(render(EXTERNAL), "Job", NAME)
    component = job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
    policy = one(render(EXTERNAL), "NetworkPolicy", "lab-cellsparse-database")
    assert component in policy["spec"]["podSelector"]["matchExpressions"][0]["values"]
