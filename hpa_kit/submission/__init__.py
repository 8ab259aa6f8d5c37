"""What Kaggle gets: mask strings, the table of predictions, its check and its score."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.submission.check import check_submission
    from hpa_kit.submission.metric import Evaluation, evaluate
    from hpa_kit.submission.rle import decode_mask, encode_label_map, encode_mask
    from hpa_kit.submission.table import prediction_string, read_submission, truth_string, write_submission

__getattr__ = lazy(__name__)
