"""Code verifier: from a response and the recorded tests to a call that runs them in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.answers.answer import answer_part
from r1ray.rewards.base import Call, Reward, Sample
from r1ray.rewards.execution.suites import as_json, code_tests, number_of_tests

LANGUAGES = {
    "python": "python", "python3": "python", "py": "python", "py3": "python", "bash": "bash", "sh": "bash", "shell": "bash",
    "cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "c++17": "cpp", "cpp17": "cpp",
    "javascript": "javascript", "js": "javascript", "node": "javascript", "nodejs": "javascript",
}  # fmt: skip
"""Name of a language in a record or behind a fence -> language that r1ray runs."""

MAX_CODE_CHARS = 1 << 18
_EXTRA_S = 8.0  # to start and to end the sandbox, which enforces the time limit itself
_LIST_ITEM = r"(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?"
_FENCE = re.compile(rf"^([ \t]*{_LIST_ITEM})(```+|~~~+)[ \t]*([\w+#.-]*)[^`\n]*$", re.MULTILINE)
_FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVerifier(Reward):
    """1.0 if the program passes all of its tests, else 0.0; with `partial` the share of tests that it passes.

    See `program` for which part of the response is the program.
    """

    language: Literal["auto", "python", "bash", "cpp", "javascript"] = (
        "auto"  # auto: the record's, else the fence's, else Python
    )
    partial: bool = False
    test_timeout_s: float = 5.0  # for each test
    suite_timeout_s: float = 60.0  # for all tests of a program; n tests get at most n * test_timeout_s
    memory_mib: int = 512

    def __post_init__(self) -> None:
        if self.test_timeout_s <= 0 or self.suite_timeout_s < self.test_timeout_s or self.memory_mib < 64:
            raise ConfigError(
                f"accuracy/code: expected test_timeout_s > 0, got {self.test_timeout_s}; suite_timeout_s >= "
                f"test_timeout_s, got suite_timeout_s = {self.suite_timeout_s}; memory_mib >= 64, got {self.memory_mib}"
            )

    def __call__(self, sample: Sample) -> float | Call:
        """See Reward. 0.0 if there is no program, else the call that runs the tests in a sandbox."""
        # The tests first: an error of the record must not depend on the response. A row may have an
        # answer beside its tests.
        tests = code_tests(sample.meta.get("tests", sample.answer))
        wanted = self._wanted_language(tests, sample)
        code, label = program(sample.response, wanted, opened=sample.opened)
        if not code.strip() or len(code) > MAX_CODE_CHARS:
            return 0.0
        language = wanted or LANGUAGES.get(label.lower(), label or "python")
        return Call(
            function="r1ray.rewards.execution.programs:judge",
            args={
                "code": _joined(tests["before"], code, language),
                "language": language,
                "chosen": not wanted,
                "tests": as_json(tests),
                "partial": self.partial,
                "test_timeout_s": self.test_timeout_s,
                "memory_bytes": self.memory_mib << 20,
            },
            lane="program",
            memory_bytes=None,
            limit_s=min(self.suite_timeout_s, number_of_tests(tests) * self.test_timeout_s),
            extra_s=_EXTRA_S,
        )

    def _wanted_language(self, tests: Mapping[str, Any], sample: Sample) -> str:
        """The language that the program must be in; empty if it may choose.

        Raises DataError for a recorded language that is not run.
        """
        recorded = str(tests["language"] or sample.meta.get("language") or "")
        known = LANGUAGES.get(recorded.lower())
        if recorded and known is None:
            runs = ", ".join(sorted(set(LANGUAGES.values())))
            raise DataError(f"the recorded language is {recorded!r:.40}; r1ray runs {runs}")
        if tests["kind"] == "calls":
            if recorded and known != "python":
                raise DataError(f"the recorded language is {recorded}; tests that call functions run in Python only")
            return "python"
        return self.language if self.language != "auto" else known or ""

    @property
    def sandboxed(self) -> bool:
        """See Reward."""
        return True


def program(response: str, wanted: str = "", *, opened: bool = False) -> tuple[str, str]:
    """The program in the answer part of a response, and the label of its fence.

    The program is the last fenced block in the language of the tests, `wanted`. If `wanted` is empty, any language that
    r1ray runs counts; but a shell block behind a program in another language shows how to run that program. If no block
    has such a label, the last block without a label counts, else the last block; without a fence, the whole answer.
    """
    part = answer_part(response, opened=opened)
    end = part.rfind("</answer>")
    start_tag = part.rfind("<answer>", 0, max(0, end))
    part = part[start_tag + len("<answer>") : end] if start_tag >= 0 else part
    part = part[-MAX_CODE_CHARS:]
    blocks, unclosed = _fenced_blocks(part)
    if not blocks:
        return ("", "") if unclosed else (part, "")
    languages = [LANGUAGES.get(label.lower(), "") for _, label in blocks]
    programs = [language for language in languages if language and language != "bash"]
    accepted = {wanted} if wanted else set(programs) or {"bash"}
    labelled = [block for block, language in zip(blocks, languages, strict=True) if language in accepted]
    unlabelled = [block for block in blocks if not block[1]]
    return (labelled or unlabelled or blocks)[-1]


def _fenced_blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    """(content, label) of each closed fenced block that is not empty, and whether a fence is left open.

    As in CommonMark, a block loses the indentation of its opening fence, and a fence that is
    indented by four columns more than the opening one, such as one in a docstring, belongs to the
    content.
    """
    blocks: list[tuple[str, str]] = []
    start: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if start is None:
            start = fence
        elif fence[2].startswith(start[2]) and not fence[3] and _columns(fence) < _columns(start) + 4:
            content = _dedented(text[start.end() + 1 : fence.start()], len(start[1]))
            blocks += [(content, start[3])] if content else []
            start = None
    return blocks, start is not None


def _columns(fence: re.Match[str]) -> int:
    return len(fence[1].expandtabs(4))


def _dedented(content: str, indent: int) -> str:
    """The lines without up to `indent` characters of leading white space."""
    return re.sub(rf"^[ \t]{{1,{indent}}}", "", content, flags=re.MULTILINE) if indent else content


def _joined(before: str, code: str, language: str) -> str:
    """The program behind the code that the record puts before it; its `from __future__` imports have to be first."""
    if not before or language != "python":
        return before + code
    imports = "".join(line.rstrip("\n") + "\n" for line in _FUTURE.findall(code))
    return imports + before + _FUTURE.sub("", code)
