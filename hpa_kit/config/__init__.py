"""Every setting of every step: typed, validated, read from and written to YAML.

A command's settings are one object. The command line, a YAML file and a notebook's parameters cell all fill
that object through :func:`make_settings`, so a name means the same everywhere and a misspelt one is an error.
"""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.config.ablation import AblationSettings
    from hpa_kit.config.base import (
        Settings,
        load_yaml,
        make_settings,
        nearest,
        read_yaml,
        to_yaml,
        write_yaml,
    )
    from hpa_kit.config.budget import BudgetSettings
    from hpa_kit.config.data import SimulateSettings, StoreSettings
    from hpa_kit.config.demo import DemoSettings
    from hpa_kit.config.ensemble import EnsembleSettings, MemberSettings, read_ensemble, write_ensemble
    from hpa_kit.config.infer import InferSettings, PredictSettings, StreamSettings
    from hpa_kit.config.kinds import (
        CellBag,
        CellPooling,
        Classes,
        FieldSide,
        Form,
        Normalisation,
        Rule,
        SegmenterName,
        Split,
        Stride,
        StrideBy,
        Views,
    )
    from hpa_kit.config.pseudo_labels import PseudoLabelSettings
    from hpa_kit.config.recipe import RecipeSettings
    from hpa_kit.config.report import ReportSettings
    from hpa_kit.config.segment import SegmentSettings
    from hpa_kit.config.subcategories import FeaturesSettings, SubcategoriesSettings
    from hpa_kit.config.train import (
        ArcFaceSettings,
        CellSettings,
        CropSettings,
        LimitSettings,
        PuzzleCamSettings,
        ScCamSettings,
        TrainSettings,
    )
    from hpa_kit.config.tune import TuneSettings

__getattr__ = lazy(__name__)
