"""templates/secrets.yaml."""

import base64
import re

from support.helm import CHART, names, one, render

DATABASE = {"database": {"kind": "postgresql"}}


def decoded(secret: dict) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_keys_of_the_store_are_random():
    two = (render({"data": {"keep": keep}}) for keep in (True, False))
    found = [decoded(one(objects, "Secret", "lab-cellsparse-store")) for objects in two]
    for secret in found:
        assert re.fullmatch("[A-Za-z0-9]{20}", secret["accessKey"])
        assert re.fullmatch("[A-Za-z0-9]{40}", secret["secretKey"])
    assert found[0]["secretKey"] != found[1]["secretKey"]


def test_the_databases_url_holds_its_password():
    secret = decoded(one(render(DATABASE), "Secret", "lab-cellsparse-database"))
    password = secret["password"]
    assert re.fullmatch("[A-Za-z0-9]{32}", password)
    host = "lab-cellsparse-postgresql.imaging.svc:5432"
    assert secret["url"] == f"postgresql+psycopg://cellsparse:{password}@{host}/cellsparse"


def test_given_secrets_are_not_made():
    plain = {"tls": {"kind": "none"}}
    values = {"s3": {"existingSecret": "keys"}, "database": {"kind": "external", "existingSecret": "sql"}}
    assert names(render({**plain, **values, "auth": {"existingSecret": "admin"}}), "Secret") == []
    assert names(render(plain), "Secret") == ["lab-cellsparse-admin", "lab-cellsparse-store"]


def test_passwords_are_kept_when_data_is_kept():
    for secret in ("lab-cellsparse-store", "lab-cellsparse-database", "lab-cellsparse-admin"):
        made = one(render({**DATABASE, "data": {"keep": True}}), "Secret", secret)
        assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert "annotations" not in one(render(DATABASE), "Secret", secret)["metadata"]


def test_no_template_or_value_holds_a_password():
    for path in [*CHART.rglob("*.yaml"), *CHART.rglob("*.tpl")]:
        for line in (line for line in path.read_text().splitlines() if not line.strip().startswith("#")):
            given = re.search(r"(?i)(password|secretkey|accesskey)\w*: *[\"']?([A-Za-z0-9+/=]{6,})", line)
            assert given is None, f"{path.name}: {line}"
