"""What all settings share: the kinds of values, filling from layers, YAML in and out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from hpa_kit.errors import InputError, nearest, shown
from hpa_kit.files import atomic_text

# Far more than any settings need; what claims more is refused before it is unfolded.
MOST_BYTES, MOST_VALUES, MOST_SHOWN = 2**20, 100_000, 200


class Settings(BaseModel):
    """Base of all settings: unknown keys refused, values checked, no change after making.

    ``renamed`` says what settings of earlier versions are called now; an error names the new name.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _is_a_path(cls, value: Any) -> Any:
        paths = value if isinstance(value, tuple) else (value,)
        if any(isinstance(path, Path) and "\0" in str(path) for path in paths):
            raise ValueError("a path holds no zero byte")
        return value


S = TypeVar("S", bound=Settings)


def make_settings(kind: type[S], *layers: Mapping[str, Any], source: str = "settings") -> S:
    """Fill one settings object from layers of values; later layers win.

    Args:
        kind: the settings class.
        layers: mappings of names to values, such as a YAML's content and then command-line options.
        source: what to call the settings in an error, such as the YAML's path.

    Raises:
        InputError: a key is unknown (the nearest known one is named), missing, or has a bad value.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    for key in merged:
        if key in kind.renamed:
            raise InputError(f"{source}: setting {key!r} is called {kind.renamed[key]!r} now")
        if key not in kind.model_fields:
            raise InputError(f"{source}: unknown setting {key!r}{nearest(str(key), kind.model_fields)}")
    try:
        return kind(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):  # of one part of the settings, which it names itself
            raise InputError(f"{source}: {cause}") from None
        name = ".".join(str(part) for part in first["loc"])
        found = "nothing" if first["type"] == "missing" else shown(first["input"], MOST_SHOWN)
        what = first["msg"].removeprefix("Value error, ")
        # What is wrong with several values together names them itself.
        raise InputError(
            f"{source}: {name}: {what}, found {found}" if name else f"{source}: {what}"
        ) from None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that stands twice, and aliases that unfold to far too much."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def _count(self, node: Any, known: dict[int, int]) -> int:
        """Values of a node with all its aliases unfolded; each node is looked at once."""
        if id(node) not in known:
            _refuse_doubles(node)
            known[id(node)] = MOST_VALUES  # of a node inside of itself
            children = [] if isinstance(node, yaml.ScalarNode) else node.value
            parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
            known[id(node)] = 1 + sum(self._count(part, known) for part in parts)
            if known[id(node)] > MOST_VALUES:
                raise yaml.YAMLError(f"its aliases unfold to more than {MOST_VALUES} values")
        return known[id(node)]


def _refuse_doubles(node: Any) -> None:
    """Of a key that stands twice YAML's loader takes the last value, and nobody notices the other."""
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{twice!r} stands twice in what begins at line {line}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds, read without building any object of its choosing.

    Raises:
        InputError: the file is missing, cannot be read, is no YAML, or holds no mapping.
    """
    content = load_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"settings: {path} holds a {type(content).__name__}; expected names and values")
    return content


def load_yaml(path: str | Path, what: str = "settings") -> Any:
    """What a YAML file holds, read without building any object of its choosing.

    Args:
        path: the file.
        what: the first word of an error.

    Raises:
        InputError: the file is missing, cannot be read, or is no YAML.
    """
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise InputError(f"{what}: {path} has {path.stat().st_size} bytes; expected {MOST_BYTES} at most")
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise InputError(f"{what}: {path} is missing") from None
    except OSError as error:
        raise InputError(f"{what}: {path} cannot be read: {error.strerror}") from None
    except InputError:
        raise
    # Wrong encodings, dates and numbers are ValueErrors.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{what}: {path} is no YAML: {' '.join(str(error).split())}") from None


def to_yaml(settings: Settings) -> str:
    """Settings as YAML text, every value written out, in the order of the class."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def write_yaml(settings: Settings, path: str | Path) -> None:
    """Write settings to a YAML file that :func:`read_yaml` and :func:`make_settings` take back."""
    atomic_text(path, to_yaml(settings))
