"""Addresses of clusters that cannot be used."""

from bad_input_table.case import SEGMENT, Case, nothing

GROUP = "Clusters"
FEATURES = "features {data} --member {member} --out {out} --cluster local:2"
AT = "expected local:N, tcp://HOST:PORT, tls://HOST:PORT, or a scheduler's file"

CASES = (
    Case(
        GROUP,
        "an address of another kind",
        nothing,
        f"{SEGMENT} --cluster http://10.0.0.1:8786",
        f"hpa-kit segment: cluster: {AT}, found 'http://10.0.0.1:8786'",
    ),
    Case(
        GROUP,
        "no number of workers",
        nothing,
        f"{SEGMENT} --cluster local:all",
        "hpa-kit segment: cluster: expected local:N, N from 1 to 999, such as local:4, found 'local:all'",
    ),
    Case(
        GROUP,
        "a scheduler's file that is missing",
        nothing,
        f"{SEGMENT} --cluster {{file}}",
        "cluster: …file is missing; expected local:N, tcp://HOST:PORT, or the file that dask scheduler "
        "--scheduler-file writes",
    ),
    Case(
        GROUP,
        "another file in its place",
        nothing,
        f"{SEGMENT} --cluster {{labels}}",
        "cluster: …train.csv is no scheduler's file (…); expected what dask scheduler --scheduler-file "
        "writes",
    ),
    Case(
        GROUP,
        "features of whole fields by a cluster",
        nothing,
        FEATURES,
        "hpa-kit features: cluster needs cells: features of whole fields are made on one machine",
    ),
)
