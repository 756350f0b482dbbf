"""Every training setting: documented, bounded by rules, and resolved into what a training reads.

Defaults that all backends share stand in brackets in the protos, as do those of a backend's own settings. Those of
common settings that differ between backends stand in the backends' presets only, from which `defaults` lists them.
"""

import json
import re

import pytest
from google.protobuf.descriptor import FieldDescriptor
from support.paths import ROOT

from cellsparse_common.rpc.rules import violations
from cellsparse_proto.v1 import rules_pb2, trainer_pb2
from cellsparse_trainer.config.presets import PLAN_FIELDS
from cellsparse_trainer.contract import installed_backends
from cellsparse_trainer.defaults import defaults as listed_defaults
from cellsparse_trainer.defaults import tables

PROTO = ROOT / "proto" / "cellsparse" / "v1" / "trainer.proto"
PRESETS = {"PAPER": trainer_pb2.PRESET_PAPER, "FAST": trainer_pb2.PRESET_FAST}
BACKENDS = {
    field.name: field.message_type for field in trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"].fields
}
COMMON = [field for field in trainer_pb2.TrainingSettings.DESCRIPTOR.fields if field.message_type is None]
LISTS = {"channels": [[8, 256]], "class_weights": [[1, 2, 3]], "loss_shares": [[0, 0.5, 1]]}
# What chooses the defaults, what only stacks have, and the name of a model.
ELSEWHERE = {"preset", "crop_depth", "initial_model"}
# What takes a single value: the network has one size of its input, or the backend lacks the switch.
SINGLE = {
    ("cellpose_sam", "crop_size"),
    *(("stardist", name) for name in ("pinned_prefetch", "device_augmentation")),
    *(("cellpose_sam", name) for name in ("compile_step", "device_augmentation")),
}
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
INSTALLED = installed_backends()
LISTED = {
    (one.backend, one.setting, one.common, one.preset, one.stacks): one
    for spec in INSTALLED.values()
    for one in listed_defaults(spec)
}


def defaults(field):
    """What stands in brackets in a field's comment; None if nothing does."""
    found = re.findall(r"\[(.+?)\]", COMMENTS[field.containing_type.name, field.name])
    return found[-1] if found else None


EACH = [
    pytest.param(backend, field, id=f"{backend}-{field.name}")
    for backend, own in BACKENDS.items()
    for field in [*COMMON, *own.fields]
]


def resolve(backend, settings, items=20):
    getattr(settings, backend).SetInParent()
    return json.loads(INSTALLED[backend].light().resolve(settings, items).to_json())


def found(config, field):
    """The value of a setting in a config that went through JSON."""
    if field.containing_type.name != "TrainingSettings":
        return config[field.name]
    names = {proto: name for name, proto in PLAN_FIELDS.items()}
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
    if field.name in ELSEWHERE or (field in COMMON and field.name == "channels"):
        pytest.skip("it chooses the defaults, is for stacks, names a model, or depends on the images")
    if (backend, field.name) in SINGLE:
        pytest.skip("only its default is allowed")
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
    assert defaults(field) or (backend, field.name, field in COMMON, "FAST", False) in LISTED
    assert defaults(field) or field in COMMON
    rules = field.GetOptions().Extensions[rules_pb2.rules]
    if field.cpp_type in NUMBERS and not getattr(rules, "in"):
        assert rules.HasField("max")
        assert f"to {rules.max:.12g}" in comment.replace(",", "")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("backend", "field"), EACH)
def test_documented_defaults_are_the_presets(backend, field, preset):
    if defaults(field) is None:
        pytest.skip("its default is each backend's own")
    sides = defaults(field).split(" / ")
    side = sides[-1] if preset == "FAST" else sides[0]
    if re.search(r"mean of|device|CPU|tuned|config", side) or field.name in ELSEWHERE:
        pytest.skip(f"{side} is no value")
    value = found(resolve(backend, trainer_pb2.TrainingSettings(preset=PRESETS[preset]), items=20), field)
    listed = [parse(entry) for entry in side.split(", ")]
    if isinstance(value, list):
        assert value == pytest.approx(listed)
    else:
        assert [value] == listed


@pytest.mark.parametrize("field", COMMON, ids=lambda field: field.name)
def test_a_common_setting_names_no_backend(field):
    comment = COMMENTS["TrainingSettings", field.name].lower().replace("-", "")
    assert not [backend for backend in BACKENDS if backend in comment]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("backend", "field"), EACH)
def test_listed_defaults_are_the_presets(backend, field, preset):
    if field.name in ("preset", "initial_model"):
        pytest.skip("it chooses defaults")
    settings = trainer_pb2.TrainingSettings(preset=PRESETS[preset])
    listed = LISTED[backend, field.name, field in COMMON, preset, False]
    assert listed.value == found(resolve(backend, settings), field)
    assert listed.common == (field in COMMON)
    assert listed.per_item == (listed.value != found(resolve(backend, settings, items=40), field))


def test_the_tables_show_every_setting_of_every_backend():
    text = tables()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == sorted(BACKENDS)
    for backend, part in zip(sorted(BACKENDS), text.split("## ")[1:], strict=True):
        rows = {match[1]: match[0].count("|") for match in re.finditer(r"^\| `(\w+)` .*$", part, re.MULTILINE)}
        fields = [*COMMON, *BACKENDS[backend].fields]
        assert set(rows) == {field.name for field in fields} - {"preset", "initial_model"}
        assert set(rows.values()) == {6}


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
