"""Report of a curation by domain, in the shape of table 5 of the DeepSeek-R1 paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ray.util.formatting import number, share

PUBLISHED = {"math": 395_285, "code": 211_129, "stem": 10_124, "logic": 10_395, "general": 177_812}
"""Rows of DeepSeek-R1's supervised data by domain (arXiv 2501.12948v2, table 5)."""
PUBLISHED_IN = "DeepSeek-R1, arXiv 2501.12948v2, table 5"


@dataclass(slots=True)
class Domain:
    """Counts of one domain."""

    prompts: int = 0
    samples: int = 0
    correct: int = 0
    judged: int = 0  # samples that were judged at all; conversations that were merged in are not
    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    kept: int = 0
    tokens: int = 0  # of the answers kept
    rounds: int = 0  # messages of the user in the conversations kept

    def keep(self, tokens: int, rounds: int) -> None:
        """Count a row of the dataset."""
        self.kept += 1
        self.tokens += tokens
        self.rounds += rounds

    def add(self, other: Domain) -> None:
        """The sum of both counts."""
        self.prompts += other.prompts
        self.samples += other.samples
        self.correct += other.correct
        self.judged += other.judged
        self.dropped.update(other.dropped)
        self.kept += other.kept
        self.tokens += other.tokens
        self.rounds += other.rounds

    def row(self, reasons: Sequence[str], total: int) -> dict[str, Any]:
        """The counts with their means and shares, which are null if nothing was counted."""
        return {
            "prompts": self.prompts,
            "samples": self.samples,
            "correct": self.correct if self.judged else None,
            "dropped": {reason: self.dropped[reason] for reason in reasons if self.dropped[reason]},
            "kept": self.kept,
            "mean_tokens": self.tokens / self.kept if self.kept else None,
            "mean_rounds": self.rounds / self.kept if self.kept else None,
            "share": self.kept / total if total else None,
        }


def make_report(domains: dict[str, Domain], reasons: Sequence[str]) -> dict[str, Any]:
    """The report as JSON types: `domains`, their `total`, the `reasons` in order, and the `published` figures."""
    total = Domain()
    for domain in domains.values():
        total.add(domain)
    return {
        "domains": {name: domain.row(reasons, total.kept) for name, domain in sorted(domains.items())},
        "total": total.row(reasons, total.kept),
        "reasons": list(reasons),
        "published": {"source": PUBLISHED_IN, "domains": dict(PUBLISHED), "total": sum(PUBLISHED.values())},
    }


def report_text(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    rows = [*report["domains"].items(), ("total", report["total"])]
    lines = [
        "# The dataset",
        "",
        "| domain | prompts | samples | correct | kept | share | mean rounds | mean tokens |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows:
        cells = (row["prompts"], row["samples"], row["correct"], row["kept"])
        means = (row["mean_rounds"], row["mean_tokens"])
        figures = [*map(number, cells), share(row["share"]), *map(number, means)]
        lines.append(f"| {_cell(name)} | {' | '.join(figures)} |")
    lines += ["", "## Dropped, by the first reason that holds", ""]
    lines += _dropped_table(report["reasons"], rows)
    published = report["published"]
    lines += ["", f"## Published: {published['source']}", "", "| domain | rows | share |", "|---|---:|---:|"]
    for name, count in (*published["domains"].items(), ("total", published["total"])):
        lines.append(f"| {name} (published) | {count:,} | {share(count / published['total'])} |")
    return "\n".join(lines) + "\n"


def _dropped_table(reasons: Sequence[str], rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    used = [reason for reason in reasons if any(reason in row["dropped"] for _, row in rows)]
    if not used:
        return ["Nothing was dropped."]
    lines = [f"| reason | {' | '.join(_cell(name) for name, _ in rows)} |", "|---|" + "---:|" * len(rows)]
    lines += [
        f"| {reason} | {' | '.join(number(row['dropped'].get(reason, 0)) for _, row in rows)} |" for reason in used
    ]
    return lines


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
