"""What Kaggle gets: mask strings, the table of predictions, its check and its score."""

from hpa_kit.submission.check import check_submission
from hpa_kit.submission.metric import Evaluation, evaluate
from hpa_kit.submission.rle import decode_mask, encode_label_map, encode_mask
from hpa_kit.submission.table import (
    prediction_string,
    read_submission,
    truth_string,
    write_submission,
)

__all__ = [
    "Evaluation",
    "check_submission",
    "decode_mask",
    "encode_label_map",
    "encode_mask",
    "evaluate",
    "prediction_string",
    "read_submission",
    "truth_string",
    "write_submission",
]
