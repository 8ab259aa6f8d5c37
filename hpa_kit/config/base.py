"""What all settings share: the kinds of values, filling from layers, YAML in and out."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from hpa_kit.errors import InputError, nearest, one_line, shown
from hpa_kit.files import atomic_text

# Far more than any settings need; what claims more is refused before it is unfolded.
MAX_BYTES, MAX_VALUES, MAX_SHOWN = 2**20, 100_000, 200


class Settings(BaseModel):
    """Base of all settings: unknown keys refused, values checked, no change after making.

    ``renamed`` says what settings of earlier versions are called now; an error names the new name.
    ``aliases`` are second names: {alias: option}.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_empty_path(cls, value: Any, info: ValidationInfo) -> Any:
        given = value if isinstance(value, list | tuple) else [value]
        if "" in given and _takes_paths(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("an empty text is no path; leave it out where none is meant")
        return value

    @field_validator("*")
    @classmethod
    def _is_a_path(cls, value: Any) -> Any:
        paths = value if isinstance(value, tuple) else (value,)
        if any(isinstance(path, Path) and "\0" in str(path) for path in paths):
            raise ValueError("a path holds no zero byte")
        return value

    @classmethod
    def options(cls) -> dict[str, FieldInfo]:
        """List every setting by its name on the command line, in files and as a keyword.

        That is its alias, where the code has another name for it; those of a group are named one by one.
        """
        found: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            group = _group(field)
            found |= {field.alias or name: field} if group is None else group.options()
        return found


class Group(Settings):
    """Settings that belong together: one attribute in the code, each of them an option everywhere else.

    The alias of a field is the option's name.
    """

    model_config = ConfigDict(populate_by_name=True)


class GroupedSettings(Settings):
    """Settings some of which stand in a :class:`Group`, are called otherwise in the code, or have two names.

    Keywords, files and copies have them by the names of their options, all on one level.
    """

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        """Options -> fields and groups."""
        if not isinstance(values, Mapping):
            return values
        found = _by_option(cls, values)
        for name, field in cls.model_fields.items():
            group = _group(field)
            if group is not None and (own := found.keys() & group.options().keys()):
                found[name] = {option: found.pop(option) for option in own}
        return found

    @model_serializer(mode="wrap")
    def _spread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields and groups -> options."""
        found: dict[str, Any] = {}
        for name, value in handler(self).items():
            field = type(self).model_fields[name]
            group = _group(field)
            if group is None:
                found[field.alias or name] = value
            else:
                found |= {group.model_fields[own].alias or own: one for own, one in value.items()}
        return found

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy settings with some options changed, which are not checked."""
        changed = _by_option(type(self), update or {})
        for name, field in type(self).model_fields.items():
            group = _group(field)
            own = {} if group is None else {one.alias or key: key for key, one in group.model_fields.items()}
            inner = {key: changed.pop(option) for option, key in own.items() if option in changed}
            if inner:
                changed[name] = getattr(self, name).model_copy(update=inner)
            elif field.alias in changed:
                changed[name] = changed.pop(field.alias)
        return super().model_copy(update=changed, deep=deep)


def _group(field: FieldInfo) -> type[Group] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Group) else None


def _by_option(kind: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under the names of their options, where they have second names."""
    twice = next((alias for alias, name in kind.aliases.items() if alias in values and name in values), None)
    if twice is not None:
        raise ValueError(f"{twice} and {kind.aliases[twice]} are one setting; give one of them")
    return {kind.aliases.get(name, name): value for name, value in values.items()}


def _takes_paths(kind: Any) -> bool:
    return kind is Path or any(map(_takes_paths, get_args(kind)))


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
    known = kind.options()
    merged: dict[str, Any] = {}
    for layer in layers:
        try:
            merged.update(_by_option(kind, layer))
        except ValueError as error:
            raise InputError(f"{source}: {error}") from None
    for key in merged:
        if key in kind.renamed:
            raise InputError(f"{source}: setting {key!r} is called {kind.renamed[key]!r} now")
        if key not in known:
            raise InputError(f"{source}: unknown setting {key!r}{nearest(str(key), known)}")
    try:
        return kind(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):  # of one part of the settings, which it names itself
            raise InputError(f"{source}: {cause}") from None
        groups = [name for name, field in kind.model_fields.items() if _group(field) is not None]
        name = ".".join(str(part) for part in first["loc"] if part not in groups)
        found = "nothing" if first["type"] == "missing" else shown(first["input"], MAX_SHOWN)
        what = first["msg"].removeprefix("Value error, ")
        # What is wrong with several values together names them itself.
        raise InputError(
            f"{source}: {name}: {what}, found {found}" if name else f"{source}: {what}"
        ) from None


_YAML = "tag:yaml.org,2002:"


class _Texts(yaml.SafeLoader):
    """Lists, mappings and texts; null, ``~`` and nothing are None.

    YAML 1.1 takes 8:30 for 510, 064 for 52, and off and no for False, which no command line does. Here every
    other scalar is the text that stands there; whoever knows what kind of value is wanted makes it of that.
    A key that stands twice is refused, as are aliases that unfold to far too much.
    """

    yaml_constructors: ClassVar[Any] = {
        None: yaml.SafeLoader.construct_undefined,
        f"{_YAML}null": yaml.SafeLoader.construct_yaml_null,
        f"{_YAML}seq": yaml.SafeLoader.construct_yaml_seq,
        f"{_YAML}map": yaml.SafeLoader.construct_yaml_map,
        **{f"{_YAML}{name}": yaml.SafeLoader.construct_yaml_str
           for name in ("str", "int", "float", "bool", "merge")},
    }  # fmt: skip

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def _count(self, node: Any, known: dict[int, int]) -> int:
        """Values of a node with all its aliases unfolded; each node is looked at once."""
        if id(node) not in known:
            _refuse_doubles(node)
            known[id(node)] = MAX_VALUES  # of a node inside of itself
            children = [] if isinstance(node, yaml.ScalarNode) else node.value
            parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
            known[id(node)] = 1 + sum(self._count(part, known) for part in parts)
            if known[id(node)] > MAX_VALUES:
                raise yaml.YAMLError(f"its aliases unfold to more than {MAX_VALUES} values")
        return known[id(node)]


_Texts.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] in (f"{_YAML}null", f"{_YAML}merge")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Values(_Texts):
    """The same, but plain decimal numbers are numbers, and true, yes, on and their opposites are switches.

    For what the kit does not know the kinds of, such as parameters of another library.
    """

    def construct_value(self, node: yaml.ScalarNode) -> Any:
        """A number or a switch, from its text."""
        text = node.value.lower()
        if text in _SWITCHES:
            return _SWITCHES[text]
        return int(text) if re.fullmatch(_WHOLE, text) else float(text)


_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_WHOLE = r"[-+]?[0-9]+"
_NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?"
_Values.add_implicit_resolver(
    "!value",
    re.compile(rf"({_NUMBER}|{'|'.join(_SWITCHES)})\Z", re.IGNORECASE),
    list("-+.0123456789tTyYoOfFnN"),
)
for _tag in ("!value", f"{_YAML}int", f"{_YAML}float", f"{_YAML}bool"):
    _Values.add_constructor(_tag, _Values.construct_value)


def _refuse_doubles(node: Any) -> None:
    """Of a key that stands twice YAML's loader takes the last value, and nobody notices the other."""
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{twice!r} stands twice in what begins at line {line}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping a YAML file holds, its values texts, as a command line has them.

    Raises:
        InputError: the file is missing, cannot be read, is no YAML, or holds no mapping.
    """
    content = load_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"settings: {path} holds a {type(content).__name__}; expected names and values")
    return content


def load_yaml(path: str | Path, what: str = "settings", texts: bool = True) -> Any:
    """Read a YAML file without building any object of its choosing.

    Args:
        path: the file.
        what: the first word of an error.
        texts: every scalar is its text, quoted or not, but for ``null``, ``~`` and nothing, which are None.
            Else plain numbers are decimal, and true, yes, on, false, no and off are switches.

    Raises:
        InputError: the file is missing, cannot be read, or is no YAML.
    """
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise InputError(f"{what}: {path} has {path.stat().st_size} bytes; expected {MAX_BYTES} at most")
        return yaml.load(path.read_text(encoding="utf-8"), _Texts if texts else _Values)  # both are safe
    except FileNotFoundError:
        raise InputError(f"{what}: {path} is missing") from None
    except OSError as error:
        raise InputError(f"{what}: {path} cannot be read: {error.strerror}") from None
    except InputError:
        raise
    # Wrong encodings and numbers of thousands of digits are ValueErrors.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{what}: {path} is no YAML: {one_line(error)}") from None


def to_yaml(settings: Settings, only_ascii: bool = False) -> str:
    """Write settings as YAML text, every value, in the order of the class."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=not only_ascii)


def write_yaml(settings: Settings, path: str | Path) -> None:
    """Write settings to a YAML file that :func:`read_yaml` and :func:`make_settings` take back."""
    atomic_text(path, to_yaml(settings))
