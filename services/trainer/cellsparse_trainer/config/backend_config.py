"""The common form of the backends' settings: checked, and as JSON, alone or beside what a model was fitted with."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from cellsparse_trainer.config.plan import GPU_SWITCHES, Plan


@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """Everything that decides what a training does. Each backend's `Config` adds its own settings.

    Raises:
        ValueError: A value is outside its range.
    """

    TOOL: ClassVar[str]
    """Name of the tool in errors."""
    RANGES: ClassVar[Mapping[str, tuple[float, float]]]
    """Smallest and largest value of settings by name, both allowed."""
    CHOICES: ClassVar[Mapping[str, tuple[Any, ...]]]
    """The values that settings may have, by name."""
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    """Settings that may also be None."""

    MOST_CHANNELS: ClassVar[int] = 1
    """Most image channels that the network takes."""
    FIXED_CHANNELS: ClassVar[bool] = True
    """Whether a network's weights are for one number of image channels, rather than for any up to the most."""

    SWITCHES: ClassVar[tuple[str, ...]] = ()
    """Those of `plan.GPU_SWITCHES` that the backend has."""

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Settings that earlier releases wrote under other names: what they are called now, by the earlier name."""

    plan: Plan
    """What all backends share."""

    def __post_init__(self) -> None:
        for name in GPU_SWITCHES:
            if getattr(self.plan, name) and name not in self.SWITCHES:
                raise ValueError(f"{name} is true; allowed: false, {self.TOOL} has no such switch.")
        check_values(self, self.RANGES, self.CHOICES, self.OPTIONAL)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings by name; `plan` is a dictionary, too."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned; lists, as JSON has them, become tuples.

        Raises:
            ValueError: A value is missing, unknown, of another type or outside its range.
        """
        try:
            named = {cls.RENAMED.get(name, name): value for name, value in values.items()}
            own: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in named.items()}
            shared: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v for name, v in own.pop("plan").items()
            }
            plan = Plan(**shared)
            return cls(plan=plan, **own)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"This is no {cls.TOOL} configuration: {error}.") from error

    def to_json(self) -> str:
        """Return all settings as a JSON object."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is no JSON, or a value is missing, unknown, of another type or outside its range.
        """
        return cls.from_dict(json.loads(text))


def check_values(
    settings: Any,
    ranges: Mapping[str, tuple[float, float]],
    choices: Mapping[str, tuple[Any, ...]],
    optional: Collection[str] = (),
) -> None:
    """Check attributes of an object.

    Args:
        settings: The object.
        ranges: Smallest and largest value by name, both allowed.
        choices: Allowed values by name.
        optional: Names of attributes that may also be None.

    Raises:
        ValueError: A value is not allowed; names it and what is allowed.
    """
    unset = {name for name in optional if getattr(settings, name) is None}
    for name in (name for name in ranges if name not in unset):
        value, (low, high) = getattr(settings, name), ranges[name]
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; allowed: {low:,} to {high:,}.")
    for name in (name for name in choices if name not in unset):
        value = getattr(settings, name)
        if value not in choices[name]:
            raise ValueError(f"{name} is {value!r}; allowed: {', '.join(str(each) for each in choices[name])}.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a model's `config.json` holds, the same for every backend."""

    config: Mapping[str, Any]
    """The settings of the training (see `BackendConfig.to_dict`)."""
    fitted: Mapping[str, Any]
    """What the training found out besides weights, such as thresholds or the diameter of cells, by name."""

    def to_json(self) -> str:
        """Return both as a JSON object with the keys "config" and "fitted"."""
        return json.dumps({"config": self.config, "fitted": self.fitted}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Take the two parts out of a parsed `config.json`, also of one that release 0.1.0 wrote.

        Raises:
            ValueError: One of them is missing.
        """
        values = _of_first_release(values)
        if not isinstance(values, Mapping) or not all(isinstance(values.get(key), Mapping) for key in _KEYS):
            raise ValueError(f"This is no model's config.json: it lacks one of the objects {' and '.join(_KEYS)}.")
        return cls(config=values["config"], fitted=values["fitted"])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is no JSON, or one of the two parts is missing.
        """
        return cls.from_dict(json.loads(text))


_KEYS = ("config", "fitted")


def _of_first_release(values: Any) -> Any:
    """Return a record of release 0.1.0 in the form of today, and any other one as it is.

    There each backend had a form of its own: the U-Net kept its thresholds as "cut", Cellpose its diameter beside the
    settings, and StarDist the settings alone, since its thresholds are in the stock model's folder.
    """
    if not isinstance(values, Mapping) or "fitted" in values:
        return values
    if "plan" in values:
        return {"config": values, "fitted": {}}
    if "cut" in values:
        return {"config": values.get("config"), "fitted": values["cut"]}
    if "diameter" in values:
        return {"config": values.get("config"), "fitted": {"diameter": values["diameter"]}}
    return values
