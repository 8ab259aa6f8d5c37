"""Write ``docs/bad_input.md`` from the table of bad input."""

from bad_input_table import CASES, PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page(CASES), encoding="utf-8")
    print(f"{PAGE}: {len(CASES)} kinds")
