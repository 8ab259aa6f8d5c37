"""Settings and YAML that cannot be used."""

from bad_input_table.case import INFER, TRAIN, Case, nothing

GROUP = "Settings"
SIMULATE = "simulate {out} --config {yaml}"
ENSEMBLE = "infer {data} --ensemble {ensemble} --out {out} --device cpu"
LABELS = "pseudo-labels {data} --members {member} --masks {masks} --out {out} --device cpu"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def _yaml(content: bytes | str):
    return lambda world: world.write("yaml", content)


def _ensemble(content: str):
    return lambda world: world.write("ensemble", content)


CASES = (
    Case(GROUP, "a settings file that is missing", nothing, SIMULATE, "settings: …settings.yaml is missing"),
    Case(GROUP, "no YAML", _yaml("train: [1, 2"), SIMULATE, "settings: …settings.yaml is no YAML: …"),
    Case(
        GROUP,
        "YAML in another encoding",
        _yaml(b"train: \xff\xfe"),
        SIMULATE,
        "settings: …settings.yaml is no YAML: …",
    ),
    Case(
        GROUP,
        "a list in place of names and values",
        _yaml("- train\n- test\n"),
        SIMULATE,
        "settings: …settings.yaml holds a list; expected names and values",
    ),
    Case(
        GROUP,
        "a misspelt setting",
        _yaml("sizes: 64"),
        SIMULATE,
        "…settings.yaml: unknown setting 'sizes'; did you mean 'size'?",
    ),
    Case(
        GROUP,
        "a name that is a number",
        _yaml("1: 64"),
        SIMULATE,
        "…settings.yaml: unknown setting '1'; known are …",
    ),
    Case(
        GROUP,
        "a text in a number's place",
        _yaml("size: large"),
        SIMULATE,
        "…settings.yaml: size: Input should be a valid integer, unable to parse string as an integer, found "
        "'large'",
    ),
    Case(
        GROUP,
        "a number out of range",
        _yaml("size: 10"),
        SIMULATE,
        "…settings.yaml: size: Input should be greater than or equal to 64, found '10'",
    ),
    Case(
        GROUP,
        "a number of thousands of digits",
        _yaml("seed: " + "9" * 5000),
        SIMULATE,
        "…settings.yaml: seed: Unable to parse input string as an integer, exceeded maximum size, found '9…",
    ),
    Case(
        GROUP,
        "not a number",
        _yaml("budget: .nan"),
        INFER + " --config {yaml}",
        "…settings.yaml: budget: Input should be a valid number, unable to parse string as a number, found "
        "'.nan'",
    ),
    Case(
        GROUP,
        "hours as a clock shows them",
        _yaml("budget: 8:30"),
        INFER + " --config {yaml}",
        "…settings.yaml: budget: Input should be a valid number, unable to parse string as a number, found "
        "'8:30'",
    ),
    Case(
        GROUP,
        "a switch in a file's place",
        _yaml("pretrained: no"),
        TRAIN + " --config {yaml}",
        "pretrained: no is missing…",
    ),
    Case(
        GROUP,
        "an empty text in a file's place",
        _yaml('warm_start: ""'),
        TRAIN + " --config {yaml}",
        "…settings.yaml: warm_start: an empty text is no path; leave it out where none is meant, found ''",
    ),
    Case(
        GROUP,
        "an empty text in a file's place on the command line",
        nothing,
        TRAIN + " --warm-start=",
        "hpa-kit train: warm_start: an empty text is no path; leave it out where none is meant, found ''",
    ),
    Case(
        GROUP,
        "a number in a switch's place",
        _yaml("square: 2"),
        SIMULATE,
        "…settings.yaml: square: Input should be a valid boolean, unable to interpret input, found '2'",
    ),
    Case(
        GROUP,
        "a date in a number's place",
        _yaml("seed: 2001-09-09"),
        SIMULATE,
        "…settings.yaml: seed: Input should be a valid integer, unable to parse string as an integer, found "
        "'2001-09-09'",
    ),
    Case(
        GROUP,
        "a tag that would run code",
        _yaml("size: !!python/object/apply:os.system ['touch ran']"),
        SIMULATE,
        "settings: …settings.yaml is no YAML: could not determine a constructor for the tag …",
    ),
    Case(
        GROUP,
        "aliases that unfold to a thousand million values",
        _yaml(BOMB + "size: *i\n"),
        SIMULATE,
        "settings: …settings.yaml is no YAML: its aliases unfold to more than 100000 values",
    ),
    Case(
        GROUP,
        "the same in an ensemble",
        _ensemble(BOMB + "members: *i\n"),
        ENSEMBLE,
        "settings: …ensemble.yaml is no YAML: its aliases unfold to more than 100000 values",
    ),
    Case(
        GROUP,
        "an alias inside of itself",
        _yaml("size: &a [*a]"),
        SIMULATE,
        "settings: …settings.yaml is no YAML: its aliases unfold to more than 100000 values",
    ),
    Case(
        GROUP,
        "lists nested 3,000 deep",
        _yaml("size: " + "[" * 3_000 + "]" * 3_000),
        SIMULATE,
        "settings: …settings.yaml is no YAML: maximum recursion depth exceeded…",
    ),
    Case(
        GROUP,
        "a folder in the place of a settings file",
        lambda world: world["yaml"].mkdir(),
        SIMULATE,
        "settings: …settings.yaml cannot be read: Is a directory",
    ),
    Case(
        GROUP,
        "an ensemble without members",
        _ensemble("rule: best\n"),
        ENSEMBLE,
        "…ensemble.yaml: members: Field required, found nothing",
    ),
    Case(
        GROUP,
        "an ensemble of no members",
        _ensemble("members: []\n"),
        ENSEMBLE,
        "…ensemble.yaml: members: Tuple should have at least 1 item after validation, not 0, found ()",
    ),
    Case(
        GROUP,
        "a member that is a list",
        _ensemble("members: [[5]]\n"),
        ENSEMBLE,
        "…ensemble.yaml: member 1: expected checkpoint, mode and weight, found ['5']",
    ),
    Case(
        GROUP,
        "a member with a misspelt setting",
        _ensemble("members:\n - checkpoint: member\n   wieght: 2\n"),
        ENSEMBLE,
        "…ensemble.yaml: member 1: unknown setting 'wieght'; did you mean 'weight'?",
    ),
    Case(
        GROUP,
        "a step that is none",
        _ensemble("members: [member]\nsteps: [negativ]\n"),
        ENSEMBLE,
        "…ensemble.yaml: step 1: unknown step 'negativ'; did you mean 'negative'?",
    ),
    Case(
        GROUP,
        "a step named by a list",
        _ensemble("members: [member]\nsteps: [{step: [x]}]\n"),
        ENSEMBLE,
        "…ensemble.yaml: step 1: unknown step ['x']; known are calibrate, …",
    ),
    Case(
        GROUP,
        "weights that sum to nothing",
        _ensemble("members:\n - checkpoint: member\n   weight: 0\n"),
        ENSEMBLE,
        "…ensemble.yaml: member 1: weight: Input should be greater than 0, found '0'",
    ),
    Case(
        GROUP,
        "an ensemble that names what is not there",
        _ensemble("members: [nowhere]\n"),
        ENSEMBLE,
        "checkpoint: …nowhere is missing; expected a file that hpa-kit train wrote",
    ),
    Case(
        GROUP,
        "no members at all",
        nothing,
        "infer {data} --out {out}",
        "hpa-kit infer: no members; give members (run folders or checkpoints), or ensemble (a YAML)",
    ),
    Case(
        GROUP,
        "members and an ensemble",
        nothing,
        INFER + " --ensemble {ensemble}",
        "hpa-kit infer: both members and ensemble are given; give one of them",
    ),
    Case(
        GROUP,
        "a shard beyond the last",
        nothing,
        "store {data} --out {out} --shard 2 --shards 2",
        "hpa-kit store: shard 2 is not one of 2 shards, which count from 0",
    ),
    Case(
        GROUP,
        "a fold beyond the last",
        nothing,
        "train {data} --out {out} --fold 5",
        "hpa-kit train: fold 5 is not one of 5 folds, which count from 0",
    ),
    Case(
        GROUP,
        "a device that is none",
        nothing,
        INFER.replace("cpu", "gpu"),
        "device: 'gpu' cannot be used here (…); use auto, cpu, cuda or cuda:0",
    ),
    Case(
        GROUP,
        "a data folder that is missing",
        nothing,
        "store {file} --out {out}",
        "data: …file is missing; expected a folder with train/ and test/, or with images",
    ),
    Case(
        GROUP,
        "a file in a data folder's place",
        lambda world: world.write("file", "x"),
        "store {file} --out {out}",
        "data: …file is a file; expected a folder with train/ and test/, or with images",
    ),
    Case(
        GROUP,
        "a file name with a zero byte",
        _yaml('data: "a\\0b"'),
        "store --out {out} --config {yaml}",
        "…settings.yaml: data: a path holds no zero byte, found …",
    ),
    Case(
        GROUP,
        "YAML of 2 MB",
        _yaml("# a comment\n" * 200_000),
        SIMULATE,
        "settings: …settings.yaml has 2400000 bytes; expected 1048576 at most",
    ),
    Case(
        GROUP,
        "a floor under hard labels",
        nothing,
        LABELS + " --floor .25",
        "hpa-kit pseudo-labels: floor 0.25 is of soft labels; give labels soft too, or no floor",
    ),
    Case(
        GROUP,
        "soft labels of fields that every member has learnt from",
        nothing,
        LABELS + " --labels soft",
        "pseudo-labels: every member (…) has learnt from … fields, such as ID …, so that soft labels …",
    ),
    Case(
        GROUP,
        "a label round that a run is not of",
        nothing,
        TRAIN + " --label-round 2",
        "train: label_round is 2, but without pseudo_labels a run is of round 0; leave it out",
    ),
)
