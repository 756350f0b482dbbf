"""values.yaml, values.schema.json, README.md and the value sets agree with each other and with the templates."""

import importlib.util
import json
import re
from collections.abc import Iterator

import pytest
import yaml
from support.helm import CHART, PLATFORMS, ROOT, VALUE_SETS, helm, refusal

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = (CHART / "values.yaml").read_text()
OPEN = {"requests", "limits", "metricsNamespaces", "roles"}
"""Values that hold keys of anybody's choice."""


def readme_module():
    spec = importlib.util.spec_from_file_location("chart_readme", ROOT / "helm" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolved(schema: dict) -> dict:
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def schema_paths(schema: dict, path: tuple = ()) -> Iterator[tuple]:
    properties = resolved(schema).get("properties", {})
    for key, inner in properties.items():
        yield (*path, key)
        yield from schema_paths(inner, (*path, key))


def value_paths(value: object, path: tuple = ()) -> Iterator[tuple]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        if key not in OPEN:
            yield from value_paths(inner, (*path, key))


def test_schema_and_values_know_the_same_keys():
    # Helm's own, for charts of charts; and what release 0.1.0 had, which is still read.
    known = {path for path in schema_paths(SCHEMA) if path[0] not in ("global", "keda")}
    assert set(value_paths(yaml.safe_load(VALUES))) == known


def test_no_object_takes_unknown_keys():
    def objects(schema: object) -> Iterator[dict]:
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield schema
            for inner in schema.values():
                yield from objects(inner)
        elif isinstance(schema, list):
            for inner in schema:
                yield from objects(inner)

    found = list(objects(SCHEMA))
    assert len(found) > 20
    for schema in found:
        assert schema.get("additionalProperties", True) is not True, schema


def test_an_entry_of_trainers_takes_what_the_defaults_take():
    entry = SCHEMA["properties"]["trainers"]["items"]["properties"]
    assert {key: value for key, value in entry.items() if key != "backend"} == (
        SCHEMA["properties"]["trainerDefaults"]["properties"]
    )


def test_every_value_is_used():
    text = "".join(path.read_text() for path in sorted(CHART.glob("templates/**/*")) if path.is_file())
    used = set(re.findall(r"[A-Za-z0-9]+", text))
    unused = [path for path in value_paths(yaml.safe_load(VALUES)) if path[-1] not in used | {"requests", "limits"}]
    assert unused == []


def test_the_readme_is_up_to_date():
    text = (CHART / "README.md").read_text()
    assert readme_module().updated(text, VALUES) == text, "`make chart-readme` writes it anew"


def test_a_value_without_a_comment_is_an_error():
    with pytest.raises(ValueError, match="line 5: c has no comment above it"):
        readme_module().render("# A.\na:\n  # B.\n  b: 1\n  c: 2\n")


@pytest.mark.parametrize("file", VALUE_SETS + PLATFORMS, ids=lambda file: file.stem)
def test_lint_is_strict_and_clean(file):
    done = helm("lint", "--strict", "--values", str(file), str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"orchestrator": {"slots": "two"}}, ["'/orchestrator/slots'", "got string, want integer"]),
        ({"orchestrator": {"slots": 0}}, ["'/orchestrator/slots'", "got 0, want 1"]),
        ({"minio": {"enabled": "yes"}}, ["'/minio/enabled'", "got string, want boolean"]),
        ({"database": {"kind": "mysql"}}, ["'/database/kind'", "'sqlite', 'postgresql', 'external'"]),
        ({"trainers": [{"backend": "unet", "gpus": 1}]}, ["'/trainers/0'", "'gpus' not allowed"]),
        ({"trainers": [{"image": "x"}]}, ["'/trainers/0'", "missing property 'backend'"]),
        ({"trainers": [{"backend": "minio"}]}, ["'/trainers/0/backend'"]),
        ({"sparsifer": {}}, ["additional properties 'sparsifer' not allowed"]),
        ({"s3": {"endpoint": "https://s3.example"}}, ["'/s3/endpoint'", "does not match pattern"]),
        (
            {"trainerDefaults": {"tolerations": [{"kee": "x"}]}},
            ["'/trainerDefaults/tolerations/0'", "'kee' not allowed"],
        ),
    ],
)
def test_wrong_values_are_refused_by_name(values, words):
    message = refusal(values)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("values", "place", "sentence"),
    [
        (
            {"database": {"kind": "external"}},
            "/database/existingSecret",
            "the name of a Secret with the key url, since database.kind is external",
        ),
        (
            {"minio": {"enabled": False}, "s3": {"endpoint": "s3.example"}},
            "/s3/existingSecret",
            "the name of a Secret with the keys accessKey and secretKey, since minio.enabled is false",
        ),
        (
            {"minio": {"enabled": False}, "s3": {"existingSecret": "keys"}},
            "/s3/endpoint",
            "host:port of the S3 server, since minio.enabled is false",
        ),
        (
            {"tls": {"kind": "secret"}},
            "/tls/secret",
            "the name of a Secret with tls.crt, tls.key and ca.crt, since tls.kind is secret",
        ),
        ({"tls": {"kind": "certManager"}}, "/tls/issuer/name", "the name of an issuer, since tls.kind is certManager"),
    ],
)
def test_what_is_missing_is_named_with_the_reason(values, place, sentence):
    message = refusal(values)
    assert f"at '{place}'" in message
    assert f"value must be '{sentence}'" in message


def test_a_backend_that_is_listed_twice_is_refused():
    assert "trainers holds unet twice" in refusal(
        {"trainers": [{"backend": "unet"}, {"backend": "unet", "image": "x"}]}
    )
