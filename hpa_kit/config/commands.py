"""Which settings each command of the command line takes, and which of them stand without an option's name."""

from typing import TYPE_CHECKING, NamedTuple

from hpa_kit import config

if TYPE_CHECKING:
    from hpa_kit.config.base import Settings


class Kind(NamedTuple):
    """The settings of a command.

    Attributes:
        name: their class, of hpa_kit.config.
        positional: settings that are given by their place.
    """

    name: str
    positional: tuple[str, ...] = ("data",)

    @property
    def settings(self) -> "type[Settings]":
        """The class, imported when it is asked for."""
        found: type[Settings] = getattr(config, self.name)
        return found


KINDS = {
    "simulate": Kind("SimulateSettings", ("out",)),
    "train": Kind("TrainSettings"),
    "features": Kind("FeaturesSettings"),
    "subcategories": Kind("SubcategoriesSettings", ("features",)),
    "store": Kind("StoreSettings"),
    "segment": Kind("SegmentSettings"),
    "infer": Kind("InferSettings"),
    "predict": Kind("PredictSettings"),
    "pseudo-labels": Kind("PseudoLabelSettings"),
    "tune": Kind("TuneSettings"),
    "report": Kind("ReportSettings", ("source",)),
    "ablation": Kind("AblationSettings"),
    "recipe": Kind("RecipeSettings", ("recipe", "data")),
    "budget": Kind("BudgetSettings", ("data",)),
    "demo": Kind("DemoSettings", ()),
}
