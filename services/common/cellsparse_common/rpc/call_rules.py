"""The rule of each call, as the protos give it (see `CallRule` in `proto/cellsparse/v1/rules.proto`)."""

from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pool

from cellsparse_proto.v1 import rules_pb2

# The stubs type extensions as bare descriptors, which `Extensions[...]` does not take.
_CALL: Any = rules_pb2.call


@lru_cache(maxsize=1024)
def call_rule(method: str) -> rules_pb2.CallRule | None:
    """Return the rule of a call; None if it has none, or there is no such call.

    Args:
        method: Its full name, such as /cellsparse.v1.OrchestratorService/GetRun.
    """
    name = method.strip("/").replace("/", ".")
    try:
        options = descriptor_pool.Default().FindMethodByName(name).GetOptions()
    except KeyError:
        return None
    rule: rules_pb2.CallRule = options.Extensions[_CALL]
    return rule if options.HasExtension(_CALL) else None
