"""What an inference is about to use, in one line."""

from collections.abc import Iterable

from hpa_kit.cells.segmenters import segmenter_for
from hpa_kit.config import EnsembleSettings, InferSettings, MemberSettings
from hpa_kit.config.scoring import name_of
from hpa_kit.scoring.functions import scoring_of

OWN = ("mode", "weight", "views", "size")  # what members can differ in


def summary_line(settings: InferSettings) -> str:
    """Tell members, rule, steps, views, map size, cells and budget of an inference, as they will be used.

    Options, an ensemble's YAML and defaults all count: no one of them says alone what will be used.

    Args:
        settings: of the inference.

    Returns:
        One line. What members differ in stands behind each of them.

    Raises:
        InputError: the ensemble's YAML cannot be read.
    """
    chosen = settings.of_ensemble()
    differing = [name for name in OWN if len({getattr(one, name) for one in chosen.members}) > 1]
    members = ", ".join(_member(one, differing) for one in chosen.members)
    steps = ", ".join(map(name_of, scoring_of(chosen).steps))
    parts = [
        f"{len(chosen.members)} members: {members}" if len(chosen.members) > 1 else f"member: {members}",
        f"rule {chosen.rule}{f' {chosen.form}' if chosen.rule == 'cam_share' else ''}",
        f"steps {steps or 'none'}",
        "views of each" if "views" in differing else f"views {chosen.members[0].views}",
        f"maps of {chosen.map_size} px",
        _cells(chosen),
        f"budget {settings.budget:g} hours, {settings.spent:.2f} gone",
    ]
    return "; ".join(parts)


def _member(member: MemberSettings, differing: Iterable[str]) -> str:
    values = {"mode": member.mode, "weight": f"{member.weight:g}", "views": member.views, "size": member.size}
    own = ", ".join(f"{name} {values[name] or 'as trained'}" for name in differing)
    return f"{member.checkpoint} ({own})" if own else str(member.checkpoint)


def _cells(chosen: EnsembleSettings) -> str:
    """Who finds the cells."""
    found = segmenter_for(chosen.segmenter, chosen.weights)
    where = "without weights" if found == "classical" else f"weights in {chosen.weights}"
    cells = f"by segmenter {found}, {where}"
    return f"cells {cells}" if chosen.masks is None else f"cells of {chosen.masks}, what it lacks {cells}"
