"""Any settings are either a training or a sentence: drawn from the protos' own rules, for every backend."""

import importlib
import math

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.rules import violations
from cellsparse_proto.v1 import rules_pb2, trainer_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.training.resolution import resolve

BACKENDS = {name: f"cellsparse_{name}" for name in ("cellpose", "cellpose_sam", "stardist", "unet")}
FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
LIMITS = {
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}


def rules_of(field):
    return field.GetOptions().Extensions[rules_pb2.rules]


def allowed(field):
    """Values that the rules of a number or enum allow, its limits above all."""
    rules = rules_of(field)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    listed = list(getattr(rules, "in"))
    if listed:
        return st.sampled_from(listed)
    if field.cpp_type in FLOATS:
        low = rules.above if rules.HasField("above") else rules.min
        inside = st.floats(low, rules.max, exclude_min=rules.HasField("above"))
        return st.one_of(inside, st.just(rules.max))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    low, high = LIMITS[field.cpp_type]
    step = max(1, rules.multiple_of)
    low = math.ceil(rules.min / step) if rules.HasField("min") else low // step
    high = int(rules.max) // step if rules.HasField("max") else high // step
    return st.one_of(st.integers(low, high), st.sampled_from([low, high])).map(lambda n: n * step)


def refused(field):
    """Values that the rules of a number or enum do not allow; none where everything is allowed."""
    rules = rules_of(field)
    if field.enum_type is not None:
        return [99]
    found = []
    if field.cpp_type in FLOATS:
        found += [math.nan, math.inf, -math.inf]
        found += [rules.above] if rules.HasField("above") else []
        found += [rules.min - 0.001] if rules.HasField("min") else []
        found += [rules.max * 1.001 + 0.001] if rules.HasField("max") else []
        return found
    if field.cpp_type not in LIMITS:
        return []
    low, high = LIMITS[field.cpp_type]
    found += [int(rules.min) - 1] if rules.HasField("min") and rules.min > low else []
    found += [int(rules.max) + 1] if rules.HasField("max") and rules.max < high else []
    found += [int(rules.min) + 1] if rules.multiple_of > 1 else []
    listed = list(getattr(rules, "in"))
    found += [max(listed) + 1] if listed else []
    return found


def numbers(descriptor):
    """Fields of a message that are numbers or enums."""
    kinds = (*FLOATS, *LIMITS, FieldDescriptor.CPPTYPE_ENUM, FieldDescriptor.CPPTYPE_BOOL)
    return [field for field in descriptor.fields if field.cpp_type in kinds and not field.is_repeated]


def own(backend):
    return getattr(trainer_pb2.TrainingSettings(), backend).DESCRIPTOR


@st.composite
def requests(draw, backend):
    """Settings in which any field may be set, each by its own rules."""
    asked = trainer_pb2.TrainingSettings()
    part = getattr(asked, backend)
    part.SetInParent()
    for message in (asked, part):
        for field in numbers(message.DESCRIPTOR):
            if draw(st.booleans()):
                setattr(message, field.name, draw(allowed(field)))
    return asked


def answer(config, asked, items, axes):
    """The resolved configuration, or why there is none."""
    try:
        return resolve(config, asked, items, axes), ""
    except InvalidArgument as error:
        return None, error.message


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=150)
@given(data=st.data())
def test_allowed_settings_are_a_training_or_a_sentence(backend, data):
    asked = data.draw(requests(backend))
    assert violations(asked) == []
    config = importlib.import_module(BACKENDS[backend] + ".config")
    items, axes = data.draw(st.integers(1, 10_000)), data.draw(st.sampled_from(["YX", "ZYX"]))
    resolved, sentence = answer(config, asked, items, axes)
    if resolved is None:
        assert sentence.endswith(".")
        assert "allow" in sentence or "stacks" in sentence, sentence
        return
    assert isinstance(resolved.plan, Plan)
    for name in ("steps", "batch_size", "crop_size", "learning_rate", "channel"):
        if asked.HasField(name):
            assert getattr(resolved.plan, name) == getattr(asked, name), name
    again = type(resolved).from_json(resolved.to_json())
    assert again.to_json() == resolved.to_json()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_out_of_range_is_refused_and_its_field_named(backend):
    checked = 0
    for prefix, descriptor in (("", trainer_pb2.TrainingSettings.DESCRIPTOR), (f"{backend}.", own(backend))):
        for field in numbers(descriptor):
            for value in refused(field):
                asked = trainer_pb2.TrainingSettings()
                getattr(asked, backend).SetInParent()
                setattr(getattr(asked, backend) if prefix else asked, field.name, value)
                found = violations(asked)
                assert [path for path, _ in found] == [prefix + field.name], (field.name, value)
                assert "allowed" in found[0][1]
                checked += 1
    assert checked > 30
