"""Names as Kaggle takes them: of files in a dataset, of datasets, of notebooks."""

import re
import unicodedata

OWNER_PLACEHOLDER = "your-name"

_FILE = re.compile(r"[A-Za-z0-9_.+=-]+")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OWNER = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")


def file_fault(name: str) -> str | None:
    """What makes a file's relative path (``/`` between parts) unfit for an upload, or None.

    Kaggle drops or renames names with ``@``, ``&`` and the like, so a name is letters, digits and
    ``_ . + = -`` only, and no part of it is ``..`` or starts with a dot.
    """
    for part in name.split("/"):
        if not _FILE.fullmatch(part):
            odd = sorted(set(re.sub(_FILE, "", part)))
            what = "an empty part" if not odd else " ".join(repr(letter) for letter in odd)
            return f"{name}: {what} in its name; Kaggle takes letters, digits and _ . + = - ; rename it"
        if part.startswith("."):
            return f"{name}: starts with a dot, which an upload leaves out; rename it"
    return None


def slug_fault(slug: str, shortest: int, longest: int = 50) -> str | None:
    """What makes a dataset's or notebook's slug unfit, or None."""
    if not _SLUG.fullmatch(slug):
        return f"slug {slug!r} needs lower-case letters and digits with single hyphens between"
    if not shortest <= len(slug) <= longest:
        return f"slug {slug!r} has {len(slug)} characters; needs {shortest} to {longest}"
    return None


def owner_fault(owner: str) -> str | None:
    """What makes a Kaggle user's name, as in an address, unfit, or None."""
    if _OWNER.fullmatch(owner):
        return None
    return f"owner {owner!r} needs lower-case letters and digits with single - or _ between"


def slugify(title: str) -> str:
    """The slug Kaggle makes of a title: lower-case letters and digits, single hyphens between words."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"(?<=\d),(?=\d)", "", plain)
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
