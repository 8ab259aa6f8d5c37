"""A notebook's parameters cell fills the same settings object as the command line."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from hpa_kit.config import Settings

S = TypeVar("S", bound="Settings")


def notebook_settings(kind: type[S], variables: Mapping[str, Any], **found: Any) -> S:
    """Settings from the variables of a notebook that bear their names.

    A variable ``epochs`` fills the setting ``epochs``; the dict ``settings`` fills any other, and wins, with
    unknown names refused. So papermill can set each of them. None says nothing where it is the setting's
    default; any other value counts as given, also where it is the default.

    Args:
        kind: the settings class of the command.
        variables: the notebook's ``globals()``.
        found: values to use whatever the variables say, such as the folder that was found for ``data``; None
            where nothing was found.

    Raises:
        InputError: a name in ``settings`` is unknown, or a value is bad.
    """
    # Here, so that the bootstrap can import this room before pydantic is known to be there.
    from hpa_kit.config import make_settings

    named = {
        name: variables[name]
        for name, field in kind.options().items()
        if name in variables and name not in found and not (variables[name] is None and field.default is None)
    }
    known = {name: value for name, value in found.items() if value is not None}
    return make_settings(kind, named, known, variables.get("settings", {}), source="parameters cell")
