"""What Kaggle gets: mask strings, the table of predictions, its check and its score."""

from hpa_kit.submission.rle import decode_mask, encode_label_map, encode_mask

__all__ = ["decode_mask", "encode_label_map", "encode_mask"]
