"""The condition behind a requirement, such as ``; python_version >= "3.9"``, as Kaggle's image meets it.

Standard library only. A marker's grammar (PEP 508) is that of a Python expression, so it is read as one;
nothing of it is run.
"""

import ast
import operator
from collections.abc import Callable

from hpa_kit.kaggle.publish.versions import admits

# Of Linux on a 64-bit PC, asked for no extras.
IMAGE = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}
_TEXT: dict[type[ast.cmpop], Callable[[str, str], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
}
_NUMBER: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def marker_holds(marker: str, python: tuple[int, int]) -> bool | None:
    """Whether Kaggle's image meets a marker; None for one that cannot be told.

    Args:
        marker: what stands behind the ``;`` of a ``Requires-Dist``.
        python: the image's Python.
    """
    try:
        return _holds(ast.parse(marker.strip(), mode="eval").body, ".".join(map(str, python)))
    except (SyntaxError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _holds(node: ast.expr, python: str) -> bool:
    if isinstance(node, ast.BoolOp):
        parts = [_holds(part, python) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        raise TypeError(f"{ast.dump(node)} is no comparison")
    left, right, kind = node.left, node.comparators[0], type(node.ops[0])
    versions = [_name(side) in ("python_version", "python_full_version") for side in (left, right)]
    if any(versions) and kind in _NUMBER:
        sign = _NUMBER[kind]
        if versions[1]:
            left, right, sign = right, left, _TURNED.get(sign, sign)
        return admits(f"{sign}{_value(right, python)}", python)
    return _TEXT[kind](_value(left, python), _value(right, python))


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _value(node: ast.expr, python: str) -> str:
    name = _name(node)
    if name is not None:
        return {**IMAGE, "python_version": python, "python_full_version": f"{python}.0"}[name]
    return str(ast.literal_eval(node))
