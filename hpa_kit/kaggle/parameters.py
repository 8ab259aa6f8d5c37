"""A notebook's parameters cell fills the same settings object as the command line."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from hpa_kit.config import Settings

S = TypeVar("S", bound="Settings")


def notebook_settings(kind: type[S], variables: Mapping[str, Any], **found: Any) -> S:
    """Settings from the variables of a notebook that bear their names.

    A variable ``epochs`` fills the setting ``epochs``; the dict ``settings`` fills any other, and wins, with
    unknown names refused. So papermill can set each of them.

    Args:
        kind: the settings class of the command.
        variables: the notebook's ``globals()``.
        found: values to use whatever the variables say, such as the folder that was found for ``data``.

    Raises:
        InputError: a name in ``settings`` is unknown, or a value is bad.
    """
    # Here, so that the bootstrap can import this room before pydantic is known to be there.
    from hpa_kit.config import make_settings

    named = {name: variables[name] for name in kind.model_fields if name in variables}
    return make_settings(kind, named, found, variables.get("settings", {}), source="parameters cell")
