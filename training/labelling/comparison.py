"""Labels from models: answer with the cheap and the top tier and compare blind, or ask a small model for the tier."""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.catalog import Fleet, Model
from router.types import Tier
from training.labelling.paid_calls import Request, n_bytes

ANSWER_TOKENS = 1024
VERDICT_TOKENS = 300
ASK_TOKENS = 20

RETOKENIZED = 2
"""So many tokens at most is a token of one model to another."""

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
    """The models of a comparison. `judge` compares; it is asked twice, with the answers in both orders.

    `middle` is compared with the top where the cheap one falls behind it; without it labels are censored.
    """

    cheap: Model
    top: Model
    judge: Model
    middle: Model | None = None

    @classmethod
    def of(cls, fleet: Fleet, judge: Model | None = None, *, with_middle: bool = False) -> Judge:
        """The fleet's cheapest and strongest models, and its strongest as judge unless another is given."""
        middle = fleet.models.get(Tier.MODERATE) if with_middle else None
        return cls(next(iter(fleet.models.values())), fleet.top, judge or fleet.top, middle)

    def answers(self, text: str) -> tuple[Request, Request]:
        """The two requests that answer a text: cheap, top."""
        return Request(self.cheap, text, ANSWER_TOKENS), Request(self.top, text, ANSWER_TOKENS)

    def comparisons(self, text: str, lower: str, top: str) -> tuple[Request, Request]:
        """The two requests that compare: the lower tier's answer as A, then as B."""
        prompts = (_COMPARE.format(request=text, a=a, b=b) for a, b in ((lower, top), (top, lower)))
        most = n_bytes(_COMPARE) + n_bytes(text) + 2 * RETOKENIZED * ANSWER_TOKENS
        first, second = (Request(self.judge, prompt, VERDICT_TOKENS, most) for prompt in prompts)
        return first, second

    def at_most(self, text: str) -> list[Request]:
        """Stand-ins for all requests of a text at their largest, to state the cost before anything is sent."""
        compared = self.comparisons(text, "", "")
        middle = () if self.middle is None else (Request(self.middle, text, ANSWER_TOKENS), *compared)
        return [*self.answers(text), *compared, *middle]


def shortfall(first: str | None, second: str | None) -> float | None:
    """How far the lower tier falls behind, by the two verdicts, its answer being A, then B: 0, .5 where the order
    decided, or 1; None without a readable verdict.
    """
    worse: list[bool] = []
    for reply, top_is in ((first, "B"), (second, "A")):
        word = verdict(reply)
        if word is None:
            return None
        worse.append(word == top_is)
    return sum(worse) / 2


def verdict(reply: str | None) -> str | None:
    """A, B or SAME: the last of them in a reply, if any."""
    words = _VERDICT.findall(reply or "")
    return str(words[-1]) if words else None


def p_required(cheap: float, middle: float | None) -> tuple[float, float, float]:
    """P(required tier) from how far the two lower tiers fall behind the top. What nobody but the top was seen to do
    counts as complex.
    """
    moderate = cheap if middle is None else min(cheap, middle)
    return 1 - cheap, cheap - moderate, moderate


def ask(model: Model, text: str) -> Request:
    """The request that asks a model for the tier of a text."""
    return Request(model, _ASK.format(request=text), ASK_TOKENS)


def tier_said(reply: str | None) -> Tier | None:
    """The tier that a reply names first, if any."""
    found = _TIER.search((reply or "").lower())
    return Tier(found[0]) if found else None
