"""Every call of every service has a rule of who may make it."""

import importlib
import pkgutil

import pytest

from cellsparse_common.rpc.call_rules import call_rule
from cellsparse_proto import v1
from cellsparse_proto.v1 import rules_pb2

SERVICES_AMONG_THEMSELVES = {"SparsifierService", "TrainerService"}
LOOKING = ("Get", "List", "Watch", "Export", "Predict", "Evaluate", "Suggest", "Scrub", "Has")


def methods():
    """Every method of every service of the protos, as (service, method)."""
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"{v1.__name__}.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                yield from ((service, method) for method in service.methods)


def full_name(service, method):
    return f"/{service.full_name}/{method.name}"


@pytest.mark.parametrize(("service", "method"), methods(), ids=lambda each: each.name)
def test_each_call_has_a_rule(service, method):
    rule = call_rule(full_name(service, method))
    assert rule is not None, f"{service.name}.{method.name} has no option (call): say in the proto who may call it"
    assert rule.scope
    inner = service.name in SERVICES_AMONG_THEMSELVES
    assert (rule.scope == rules_pb2.SCOPE_SERVICES) == inner
    assert bool(rule.role) == (not inner)


@pytest.mark.parametrize(("service", "method"), methods(), ids=lambda each: each.name)
def test_readers_change_nothing_and_what_is_not_a_look_is_recorded(service, method):
    rule = call_rule(full_name(service, method))
    if rule.role == rules_pb2.ROLE_READER:
        assert not rule.changes
    if rule.role and not rule.changes:
        assert method.name.startswith(LOOKING), f"{method.name} changes something, so far as its name tells"


def test_what_is_no_call_has_no_rule():
    assert call_rule("/cellsparse.v1.OrchestratorService/NoSuchCall") is None
    assert call_rule("/grpc.health.v1.Health/Check") is None
