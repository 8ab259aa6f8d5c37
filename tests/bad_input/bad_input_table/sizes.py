"""Sizes and numbers beyond what anything can hold, and of nothing."""

from bad_input_table.case import INFER, TRAIN, Case, nothing

GROUP = "Huge and zero sizes"


def _case(kind: str, command: str, message: str) -> Case:
    return Case(GROUP, kind, nothing, command, message)


CASES = (
    _case(
        "fields resized to nothing",
        "store {data} --out {out} --size 0",
        "hpa-kit store: size: Input should be greater than or equal to 32, found '0'",
    ),
    _case(
        "fields resized to a million pixels a side",
        "store {data} --out {out} --size 1000000",
        "hpa-kit store: size: Input should be less than or equal to 8192, found '1000000'",
    ),
    _case(
        "training fields of a million pixels a side",
        TRAIN.replace("--size 32", "--size 1000000"),
        "hpa-kit train: size: Input should be less than or equal to 8192, found '1000000'",
    ),
    _case(
        "training fields of a side that the backbone cannot take",
        TRAIN.replace("test_resnet --size 32 --stride 8", "test_vit --size 100 --stride 16"),
        "size: backbone test_vit cannot look at fields of 100 x 100; …takes: 96 and 112 (…)",
    ),
    _case(
        "a backbone that has no maps of the stride",
        TRAIN.replace("test_resnet --size 32 --stride 8", "test_vit --size 96 --stride 32"),
        "backbone: test_vit has no stage of stride 32; it has [16]",
    ),
    _case(
        "one field a step where a map is one pixel",
        TRAIN.replace("--stride 8", "--stride 32").replace("--batch 3", "--batch 1"),
        "batch: one field a step and process at size 32 … take batch 2 or more for each process",
    ),
    _case(
        "maps of a million pixels a side",
        INFER.replace("--map-size 32", "--map-size 1000000"),
        "hpa-kit infer: map_size: Input should be less than or equal to 4096, found '1000000'",
    ),
    _case(
        "batches of nothing",
        INFER + " --batch 0",
        "hpa-kit infer: batch: Input should be greater than or equal to 1, found '0'",
    ),
    _case(
        "a million threads",
        INFER + " --workers 1000000",
        "hpa-kit infer: workers: Input should be less than or equal to 256, found '1000000'",
    ),
    _case(
        "no time", INFER + " --budget 0", "hpa-kit infer: budget: Input should be greater than 0, found '0'"
    ),
    _case(
        "endless time",
        INFER + " --budget inf",
        "hpa-kit infer: budget: Input should be a finite number, found 'inf'",
    ),
    _case(
        "time that is over before the first field",
        INFER + " --budget 1 --spent 1",
        "infer: not one of the 2 fields of …test was scored: 2 were not reached; there was no time for any; "
        "the same command tries them again",
    ),
    _case(
        "pictures of a million pixels a side",
        "picture {submission} {data} --out {out} --side 1000000",
        "picture: side is 1000000; expected 32 to 4096 pixels",
    ),
    _case(
        "pictures of nothing",
        "picture {submission} {data} --out {out} --side 0",
        "picture: side is 0; expected 32 to 4096 pixels",
    ),
    _case(
        "a picture of -1 fields",
        "picture {submission} {data} --out {out} --fields -1",
        "picture: fields is -1; expected 1 or more",
    ),
    _case(
        "simulated fields of a million pixels a side",
        "simulate {out} --size 1000000",
        "hpa-kit simulate: size: Input should be less than or equal to 3072, found '1000000'",
    ),
    _case(
        "a rehearsal of no fields",
        "kaggle rehearse --out {out} --train 0",
        "rehearse: train is 0; expected 2 to 21806",
    ),
    _case(
        "a rehearsal of fields of a million pixels a side",
        "kaggle rehearse --out {out} --size 1000000",
        "rehearse: size is 1000000; expected 64 to 3072",
    ),
)
