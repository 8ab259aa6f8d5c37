"""Learning where proteins are, from image labels."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.training.checkpoint import BEST, LAST, checkpoint_file, read_checkpoint, settings_of
    from hpa_kit.training.data import run_folds
    from hpa_kit.training.member import Member, load_member
    from hpa_kit.training.processes import Processes, processes_for
    from hpa_kit.training.run_folder import find_start
    from hpa_kit.training.subcategories import assign_subcategories
    from hpa_kit.training.targets import make_soft_target, make_target
    from hpa_kit.training.trainer import Trainer, train

__getattr__ = lazy(__name__)
