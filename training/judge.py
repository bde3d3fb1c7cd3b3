"""Labels from models: answer with the cheap and the top tier and compare blind, or ask a small model for the tier."""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.catalog import Fleet, Model
from router.types import Tier
from training.calls import Request

ANSWER_TOKENS = 1024
VERDICT_TOKENS = 300
ASK_TOKENS = 20

_COMPARE = """You compare two answers to the same request. Judge only whether each does what was asked: right, \
complete, usable. Length, tone and layout do not count. Answers may have been cut off at the same length.

<request>
{request}
</request>

<answer_a>
{a}
</answer_a>

<answer_b>
{b}
</answer_b>

Would the one who asked lose anything with one of the answers instead of the other? Think in two sentences at most, \
then end with a line that holds one word alone: A if answer A is better, B if answer B is better, SAME if either \
would do."""

_ASK = """Which kind of assistant does this request need? "simple": a small, fast model answers it as well as the \
best. "moderate": a mid-sized model is needed. "complex": only the strongest model does it well: proofs, hard code, \
long reasoning, expert knowledge. Answer with one word: simple, moderate or complex.

<request>
{request}
</request>"""

_VERDICT = re.compile(r"\b(A|B|SAME)\b")
_TIER = re.compile("|".join(Tier))


@dataclass(frozen=True)
class Judge:
    """The models of a comparison. `judge` compares; it is asked twice, with the answers in both orders."""

    cheap: Model
    top: Model
    judge: Model

    @classmethod
    def of(cls, fleet: Fleet, judge: Model | None = None) -> Judge:
        """The fleet's cheapest and strongest models, and its strongest as judge unless another is given."""
        return cls(next(iter(fleet.models.values())), fleet.top, judge or fleet.top)

    def answers(self, text: str) -> tuple[Request, Request]:
        """The two requests that answer a text: cheap, top."""
        return Request(self.cheap, text, ANSWER_TOKENS), Request(self.top, text, ANSWER_TOKENS)

    def comparisons(self, text: str, cheap: str, top: str) -> tuple[Request, Request]:
        """The two requests that compare: the cheap answer as A, then as B."""
        prompts = (_COMPARE.format(request=text, a=a, b=b) for a, b in ((cheap, top), (top, cheap)))
        first, second = (Request(self.judge, prompt, VERDICT_TOKENS) for prompt in prompts)
        return first, second

    def at_most(self, text: str) -> list[Request]:
        """Stand-ins for all four requests of a text at their largest, to state the cost before anything is sent."""
        longest = "x" * (4 * ANSWER_TOKENS)
        return [*self.answers(text), *self.comparisons(text, longest, longest)]


def p_required(first: str | None, second: str | None) -> tuple[float, float, float] | None:
    """P(required tier) from the two verdicts, the cheap answer being A, then B; None without a readable verdict.

    The cheap tier suffices where it is not worse; verdicts that depend on the order count half. What only the
    strongest was seen to do counts as complex.
    """
    worse = []
    for reply, top_is in ((first, "B"), (second, "A")):
        words = _VERDICT.findall(reply or "")
        if not words:
            return None
        worse.append(words[-1] == top_is)
    lost = sum(worse) / 2
    return 1 - lost, 0.0, lost


def ask(model: Model, text: str) -> Request:
    """The request that asks a model for the tier of a text."""
    return Request(model, _ASK.format(request=text), ASK_TOKENS)


def tier_said(reply: str | None) -> Tier | None:
    """The tier that a reply names first, if any."""
    found = _TIER.search((reply or "").lower())
    return Tier(found[0]) if found else None
