"""Which settings each command takes: {command: (their class, those that are given by their place)}.

The class is one of ``hpa_kit.config``, to be imported when it is asked for.
"""

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "simulate": ("SimulateSettings", ("out",)),
    "train": ("TrainSettings", ("data",)),
    "features": ("FeaturesSettings", ("data",)),
    "subcategories": ("SubcategoriesSettings", ("features",)),
    "store": ("StoreSettings", ("data",)),
    "segment": ("SegmentSettings", ("data",)),
    "infer": ("InferSettings", ("data",)),
    "predict": ("PredictSettings", ("data",)),
    "pseudo-labels": ("PseudoLabelSettings", ("data",)),
    "tune": ("TuneSettings", ("data",)),
    "report": ("ReportSettings", ("source",)),
    "ablation": ("AblationSettings", ("data",)),
    "recipe": ("RecipeSettings", ("recipe", "data")),
    "budget": ("BudgetSettings", ("data",)),
    "demo": ("DemoSettings", ()),
}
