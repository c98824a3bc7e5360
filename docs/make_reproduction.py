"""Write the generated parts of docs/reproduction.md from results/: python docs/make_reproduction.py

What stands between `<!-- generated: NAME -->` and `<!-- end -->` is made from the files; the rest is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from engine.report import directions, tables
from engine.report.page import lead
from engine.runs import kept

HERE = Path(__file__).parent
PAGE, RESULTS = HERE / "reproduction.md", HERE.parent / "results"
_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, results: Path) -> str:
    """A page with every generated part as the results have it."""
    report = tables.paper(kept.folders(results))
    parts = {
        "lead": "\n".join(lead(report)),
        "tally": directions.tally_markdown(report),
        "rule": "\n\n".join(directions.effects.RULE),
        **{table.key: directions.table_markdown(report, table) for table in report.tables},
        "effects": "\n\n".join(directions.effects_markdown(report)),
        "explanations": directions.explained_markdown(report),
        "masking": directions.masking_markdown(report),
        "sources": directions.sources_markdown(report),
    }
    return _PART.sub(lambda match: f"{match[1]}\n{parts[match[2]]}\n\n{match[3]}", text)


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(before, RESULTS), encoding="utf-8")
    print(f"{PAGE}: {'as it was' if before == PAGE.read_text(encoding='utf-8') else 'written anew'}", file=sys.stderr)
