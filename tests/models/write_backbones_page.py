"""Write the tables of ``docs/backbones.md``: what a member of each family of timm does, tried."""

import sys
from pathlib import Path

import timm
import torch
from families import MEMBERS
from places import beside, wake

from hpa_kit.errors import InputError
from hpa_kit.models.backbones import Backbone

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"
STRIDES = (32, 16, 14, 8)

FAMILIES = """## Families

| family | tried | strides | sides | beside |
|---|---|---|---|---|
"""
REFUSED = """
## Refused

| family | tried | why |
|---|---|---|
"""


def main() -> None:
    """Try all families; what stands above the tables is kept."""
    torch.set_num_threads(1)
    rows, refused = [], []
    for kind, name in sorted(MEMBERS.items()):
        torch.manual_seed(0)  # the same weights whatever was tried before
        found, faults = {}, []
        for stride in STRIDES:
            try:
                found[stride] = Backbone(name, stride)
            except InputError as error:
                faults.append(str(error).removeprefix(f"backbone: {name} "))
        if found:
            strides = ", ".join(map(str, found))
            backbone = next(iter(found.values()))
            rows.append(f"| {kind} | {name} | {strides} | {_sides(backbone)} | {_farthest(backbone):.2f} |")
        else:
            # What it gives says more than that it has another stride.
            fault = min(faults, key=lambda fault: not fault.startswith("gives"))
            refused.append(f"| {kind} | {name} | {fault} |")
        print((rows if found else refused)[-1], file=sys.stderr, flush=True)
    top = PAGE.read_text(encoding="utf-8").split(FAMILIES.splitlines()[0])[0]
    tried = f"Tried with timm {timm.__version__}.\n\n"
    tables = [FAMILIES.replace("\n\n", f"\n\n{tried}", 1), *rows, REFUSED, *refused]
    PAGE.write_text(
        top + "".join(part if part.endswith("\n") else f"{part}\n" for part in tables), encoding="utf-8"
    )


def _sides(backbone: Backbone) -> str:
    sides = backbone.sides
    side = sides.built_for
    if sides.takes(side - 1) and sides.takes(side + 1):
        padded = {sides.padded(other) for other in (side - 1, side + 1)} != {side - 1, side + 1}
        return "any, padded" if padded else "any"
    steps = (
        step for step in (2, 4, 8, 14, 16, 32, 64) if all(map(sides.takes, range(side, side + 65, step)))
    )
    step = next(steps, None)
    text = f"{side}" if step is None else f"multiples of {step}"
    return f"{text}, or the one it learns from" if _is_made_for(backbone, side + 32) else text


def _is_made_for(backbone: Backbone, side: int) -> bool:
    try:
        return Backbone(backbone.name, backbone.sides.stride, size=side).sides.built_for == side
    except InputError:
        return False


def _farthest(backbone: Backbone) -> float:
    wake(backbone.eval())
    stride = backbone.sides.stride
    return max(beside(backbone, backbone.sides.nearest(4 * stride + more)) for more in (-1, 1))


if __name__ == "__main__":
    main()
