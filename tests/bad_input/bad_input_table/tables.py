"""Tables of image labels, folds, samples, external fields and features that cannot be used."""

from bad_input_table.case import INFER, STORE, TRAIN, Case
from bad_input_table.world import World

GROUP = "Tables"
SUBCATEGORIES = "subcategories {features} --labels {labels} --out {out} --k 1"
LONG = (
    "tables: …train.csv has rows with more values than its header names; expected a CSV with "
    "the columns ID, Label"
)
CLASSES = "expected 0 to 18 joined by |"


def _put(name: str, content: bytes | str):
    return lambda world: world.write(name, content)


def _edit(name: str, old: str, new: str):
    return lambda world: world.edit(name, old, new)


def _external(row: str):
    return lambda world: world.write("file", f"ID,Label_idx,Cellline,isin_dataset\n{row}\n")


def _folds(text: str):
    def make(world: World) -> None:
        world["out"].mkdir()
        (world["out"] / "folds.csv").write_text(text)

    return make


EXTERNAL = STORE + " --external {file} --external-images {train}"
CASES = (
    Case(
        GROUP,
        "no table of image labels",
        lambda w: w["labels"].unlink(),
        TRAIN,
        "data: …train.csv is missing; expected the table of image labels (ID, Label)",
    ),
    Case(
        GROUP,
        "an empty table",
        _put("labels", ""),
        STORE,
        "tables: …train.csv is empty; expected a CSV with the columns ID, Label",
    ),
    Case(
        GROUP,
        "a table in another encoding",
        _put("labels", "ID,Label\nf\xe9,0\n".encode("latin-1")),
        STORE,
        "tables: …train.csv cannot be read as a CSV: 'utf-8' codec can't decode …",
    ),
    Case(
        GROUP,
        "a table of zero bytes only",
        _put("labels", bytes(100)),
        STORE,
        "tables: …train.csv lacks the column ID, Label; expected ID, Label, found …",
    ),
    Case(
        GROUP,
        "a web page named csv",
        _put("labels", "<html>\n<body>a, b, c</body>\n</html>\n"),
        STORE,
        LONG,
    ),
    Case(
        GROUP,
        "a lacking column",
        _edit("labels", "Label", "Labels"),
        STORE,
        "tables: …train.csv lacks the column Label; expected ID, Label, found ID, Labels",
    ),
    Case(
        GROUP,
        "a lacking column in a table of semicolons",
        _put("labels", "ID;Labels\nf0;0\n"),
        STORE,
        "tables: …train.csv lacks the column Label; expected ID, Label, found ID, Labels (with semicolons "
        "between them)",
    ),
    Case(
        GROUP,
        "a table of another separator",
        _put("labels", "ID|Label\nf0|0\n"),
        STORE,
        "tables: …train.csv lacks the column ID, Label; expected ID, Label, found ID|Label, with '|' between "
        "them; put commas, semicolons or tabs there",
    ),
    Case(
        GROUP,
        "rows with more values than columns",
        _edit("labels", "f0,0", "f0,0,1"),
        STORE,
        LONG,
    ),
    Case(
        GROUP,
        "quotes that never end",
        _edit("labels", "f0,0", 'f0,"0'),
        STORE,
        "tables: …train.csv cannot be read as a CSV: …EOF inside string starting at row 1",
    ),
    Case(
        GROUP,
        "an ID twice",
        _edit("labels", "f1,", "f0,"),
        STORE,
        "tables: …train.csv holds ID f0 more than once; expected one row per ID",
    ),
    Case(
        GROUP,
        "an ID that holds a line break",
        _put("labels", 'ID,Label\n"f\n0",0\n"f\n0",0\n'),
        STORE,
        "tables: …train.csv holds ID f 0 more than once; expected one row per ID",
    ),
    Case(
        GROUP,
        "a row without ID",
        _edit("labels", "f1,", ","),
        STORE,
        "tables: …train.csv has no ID in row 2 below the header",
    ),
    Case(
        GROUP,
        "an ID that leads out of the folder",
        _edit("labels", "f1,", "../f1,"),
        STORE,
        "fields: 1 of 4 labelled fields lack images in …, such as ID ../f1 (red, green, blue, yellow); "
        "add them, or take their rows out of train.csv",
    ),
    Case(
        GROUP,
        "a location class that is none",
        _edit("labels", "f0,0", "f0,19"),
        STORE,
        "labels: …train.csv, ID f0: '19' is no location class; " + CLASSES,
    ),
    Case(
        GROUP,
        "a location class of thousands of digits",
        _edit("labels", "f0,0", "f0," + "1" * 5000),
        STORE,
        "labels: …train.csv, ID f0: '11111… is no location class; " + CLASSES,
    ),
    Case(
        GROUP,
        "a word in place of a location class",
        _edit("labels", "f0,0", "f0,Nucleoplasm"),
        STORE,
        "labels: …train.csv, ID f0: 'Nucleoplasm' is no location class; " + CLASSES,
    ),
    Case(
        GROUP,
        "an empty label",
        _edit("labels", "f0,0", "f0,"),
        STORE,
        "labels: …train.csv, ID f0: the label is empty; expected classes 0 to 18 joined by |",
    ),
    Case(
        GROUP,
        "a table without rows",
        _put("labels", "ID,Label\n"),
        TRAIN,
        "data: …train.csv has no row; expected one per labelled field",
    ),
    Case(
        GROUP,
        "a row of image labels without images",
        _edit("labels", "f0,0", "f0,0\nf9,0"),
        TRAIN,
        "fields: 1 of 5 labelled fields lack images in …, such as ID f9 (red, green, blue, yellow); add "
        "them, or take their rows out of train.csv",
    ),
    Case(
        GROUP,
        "folds of other fields",
        _folds("ID,Label,fold\nx,0,0\ny,0,1\n"),
        TRAIN,
        "folds: …folds.csv was made for other fields: 4 are not in it, 2 are in it only (such as f0); "
        "delete it to make new folds",
    ),
    Case(
        GROUP,
        "a fold that is no number",
        _folds("ID,Label,fold\nf0,0,first\n"),
        TRAIN,
        "folds: …folds.csv, ID f0: fold is 'first'; expected a whole number",
    ),
    Case(
        GROUP,
        "another number of folds",
        _folds("ID,Label,fold\nf0,0,0\nf1,0,1\nf2,0,2\nf3,0,3\n"),
        TRAIN,
        "folds: …folds.csv holds 4 folds; expected 2; delete it to make new folds",
    ),
    Case(
        GROUP,
        "a sample without size",
        _edit("sample", "t0,48", "t0,"),
        INFER,
        "sample: …sample_submission.csv, ID t0: ImageWidth is ''; expected a number of pixels above 0",
    ),
    Case(
        GROUP,
        "a sample of 0 pixels",
        _edit("sample", "t0,48", "t0,0"),
        INFER,
        "sample: …sample_submission.csv, ID t0: ImageWidth is '0'; expected a number of pixels above 0",
    ),
    Case(
        GROUP,
        "a sample with rows but without images costs those rows only",
        _edit("sample", "t1,", "t9,48,48,\nt1,"),
        INFER,
        "infer: 1 rows have no image in …test: t9",
        status=0,
    ),
    Case(
        GROUP,
        "an external field with a bad label",
        _external("x,0|99,HeLa,True"),
        EXTERNAL,
        "external: …file, ID x: '99' is no location class; " + CLASSES,
    ),
    Case(
        GROUP,
        "an external field that is neither in the data set nor not",
        _external("x,0,HeLa,perhaps"),
        EXTERNAL,
        "external: …file, ID x: isin_dataset is 'perhaps'; expected True or False",
    ),
    Case(
        GROUP,
        "features of other fields than the labels",
        _put("labels", "ID,Label\nother,0\n"),
        SUBCATEGORIES,
        "subcategories: …features.npz lacks 1 of 1 fields of …train.csv, such as ID other; run hpa-kit "
        "features on all of them",
    ),
    Case(
        GROUP,
        "features that are text",
        _put("features", "1,2,3\n"),
        SUBCATEGORIES,
        "features: …features.npz is no file of hpa-kit features, or damaged: …",
    ),
    Case(
        GROUP,
        "features that are missing",
        lambda w: w["features"].unlink(),
        SUBCATEGORIES,
        "features: …features.npz is missing; expected a file of hpa-kit features",
    ),
    Case(
        GROUP,
        "external fields of which none has images",
        _external("x1,5,HeLa,True"),
        EXTERNAL,
        "external: no field of …file is taken: none of its 1 new IDs, such as x1, has its images in …train; "
        "put that right or leave external out",
    ),
)
