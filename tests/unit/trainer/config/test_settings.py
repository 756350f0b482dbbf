"""Every training setting: documented with its defaults, bounded by rules, and resolved into what a training reads."""

import importlib
import json
import re

import pytest
from google.protobuf.descriptor import FieldDescriptor
from support.paths import ROOT

from cellsparse_common.rpc.rules import violations
from cellsparse_proto.v1 import rules_pb2, trainer_pb2
from cellsparse_trainer.config.presets import _PLAN_FIELDS

PROTO = ROOT / "proto" / "cellsparse" / "v1" / "trainer.proto"
PRESETS = {"PAPER": trainer_pb2.PRESET_PAPER, "FAST": trainer_pb2.PRESET_FAST}
BACKENDS = {
    field.name: field.message_type for field in trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"].fields
}
NAMES = {"cellpose": "Cellpose", "stardist": "StarDist", "unet": "U-Net"}
COMMON = [field for field in trainer_pb2.TrainingSettings.DESCRIPTOR.fields if field.message_type is None]
LISTS = {"channels": [[8, 256]], "class_weights": [[1, 2, 3]], "loss_shares": [[0, 0.5, 1]]}
# What chooses the defaults, what only stacks have, and the name of a model.
ELSEWHERE = {"preset", "crop_depth", "initial_model"}
NUMBERS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_UINT32}


def comments():
    """The comment above each field, by message and field name."""
    found, message, above = {}, "", []
    for line in PROTO.read_text().splitlines():
        if match := re.match(r"message (\w+) \{", line):
            message = match[1]
        if match := re.match(r" +// ?(.*)", line):
            above.append(match[1])
            continue
        if match := re.match(r" +(?:optional |repeated )?\w+ (\w+) = \d+", line):
            found[message, match[1]] = " ".join(above)
        above = []
    return found


COMMENTS = comments()


def defaults(field):
    """What stands in brackets in a field's comment."""
    return re.findall(r"\[(.+?)\]", COMMENTS[field.containing_type.name, field.name])[-1]


EACH = [
    pytest.param(backend, field, id=f"{backend}-{field.name}")
    for backend, own in BACKENDS.items()
    for field in [*COMMON, *own.fields]
]


def resolve(backend, settings, items=20):
    getattr(settings, backend).SetInParent()
    config = importlib.import_module(f"cellsparse_{backend}.config")
    return json.loads(config.resolve(settings, items).to_json())


def found(config, field):
    """The value of a setting in a config that went through JSON."""
    if field.containing_type.name != "TrainingSettings":
        return config[field.name]
    names = {proto: name for name, proto in _PLAN_FIELDS.items()}
    return config["plan"][names.get(field.name, field.name)]


def candidates(field):
    """Values that may be allowed, as they are set and as the config has them."""
    rules = field.GetOptions().Extensions[rules_pb2.rules]
    if field.is_repeated:
        return [(value, value) for value in LISTS[field.name]]
    if field.enum_type is not None:
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        return [(value.number, value.name.removeprefix(prefix).lower()) for value in field.enum_type.values[1:]]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return [(value, value) for value in (False, True)]
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64:
        return [(2**64 - 1, 2**64 - 1)]
    low = rules.min or rules.above
    numbers = [*getattr(rules, "in"), rules.max, low, low + (rules.max - low) / 4, low + 1, low + 2]
    whole = field.cpp_type == FieldDescriptor.CPPTYPE_UINT32
    return [(int(n), int(n)) if whole else (n, n) for n in numbers]


@pytest.mark.parametrize(("backend", "field"), EACH)
def test_a_given_setting_reaches_the_config(backend, field):
    if field.name in ELSEWHERE:
        pytest.skip("it chooses the defaults, is for stacks, or names a model")
    default = found(resolve(backend, trainer_pb2.TrainingSettings()), field)
    for value, expected in candidates(field):
        settings = trainer_pb2.TrainingSettings()
        target = settings if field in COMMON else getattr(settings, backend)
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)
        if expected == default or violations(target if field not in COMMON else settings)[1:]:
            continue
        try:
            assert found(resolve(backend, settings), field) == expected
        except ValueError:
            continue  # it does not go with another setting's default
        return
    pytest.fail("no value was taken over")


@pytest.mark.parametrize(("backend", "field"), EACH)
def test_a_setting_has_a_range_and_documents_its_defaults(backend, field):
    comment = COMMENTS[field.containing_type.name, field.name]
    assert defaults(field)
    rules = field.GetOptions().Extensions[rules_pb2.rules]
    if field.cpp_type in NUMBERS and not getattr(rules, "in"):
        assert rules.HasField("max")
        assert f"to {rules.max:.12g}" in comment.replace(",", "")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("backend", "field"), EACH)
def test_documented_defaults_are_the_presets(backend, field, preset):
    sides = defaults(field).split(" / ")
    side = sides[-1] if preset == "FAST" else sides[0]
    if match := re.search(rf"{NAMES[backend]} ([^,;]+)", side):
        side = match[1]
    if re.search(r"epoch|mean of|device|CPU|tuned|config", side) or field.name in ELSEWHERE:
        pytest.skip(f"{side} is no value")
    value = found(resolve(backend, trainer_pb2.TrainingSettings(preset=PRESETS[preset]), items=20), field)
    listed = [parse(entry) for entry in side.split(", ")]
    if isinstance(value, list):
        assert value == pytest.approx(listed)
    else:
        assert [value] == listed


@pytest.mark.parametrize(("preset", "side"), [("PAPER", 0), ("FAST", 1)])
@pytest.mark.parametrize("backend", ["stardist", "unet"])
def test_the_documented_crop_depth_is_the_presets(backend, preset, side):
    field = trainer_pb2.TrainingSettings.DESCRIPTOR.fields_by_name["crop_depth"]
    listed = re.search(rf"{NAMES[backend]} (\d+)", defaults(field).split(" / ")[side])
    settings = trainer_pb2.TrainingSettings(preset=PRESETS[preset])
    getattr(settings, backend).SetInParent()
    config = importlib.import_module(f"cellsparse_{backend}.config").resolve(settings, 20, stacks=True)
    assert config.plan.crop_depth == int(listed[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_percentiles_that_leave_no_image_are_refused(backend):
    with pytest.raises(ValueError, match="both 50"):
        resolve(backend, trainer_pb2.TrainingSettings(lower_percentile=50, upper_percentile=50))


def parse(text):
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        return int(match[1]) / int(match[2])
    return float(text) if re.fullmatch(r"-?[\d.]+", text) else text.lower()
