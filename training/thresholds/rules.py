"""What the rules of the settings do to labelled requests: which they match, and which they send too low or too high."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from router.decide.rules import Context, Rule
from router.decide.task import read_task
from router.engine import Router
from router.settings import Settings
from router.types import Body, Task, Tier, TurnState
from training.build.arrays import Array
from training.rows import traffic
from training.rows.traffic import LabelBatch, TrafficFile
from training.thresholds.risk import Evidence

N_WORST = 3

_TIERS = list(Tier)


@dataclass(frozen=True)
class Miss:
    """A labelled row that went too low: its number in the file, its text, and the tiers of label and rule."""

    row: int
    text: str
    label: Tier
    sent: Tier


@dataclass
class Tally:
    """What became of some rows. `below` and `above` are P(the tier was too low, too high) of each, 0 or 1 for sure
    labels; those of `alone` are the classifier's on the same rows, without any rule.
    """

    below: list[float] = field(default_factory=list)
    above: list[float] = field(default_factory=list)
    alone_below: list[float] = field(default_factory=list)
    alone_above: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.below)

    def add(self, p_required: Array, sent: Tier, alone: Tier) -> None:
        """Count one row, of P(required tier) float64 [n_tiers]."""
        for tier, below, above in (
            (sent, self.below, self.above),
            (alone, self.alone_below, self.alone_above),
        ):
            below.append(float(p_required[tier.rank + 1 :].sum()))
            above.append(float(p_required[: tier.rank].sum()))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of the share that goes too low."""
        return Evidence.of(np.array(self.below)).interval(confidence)


@dataclass
class Checked:
    """What one rule did. `n_shadowed` further rows meet its conditions and went to an earlier rule; `untold` are its
    conditions that neither labels nor options tell, so that it cannot match.
    """

    rule: Rule
    untold: list[str]
    tally: Tally = field(default_factory=Tally)
    n_shadowed: int = 0
    misses: list[Miss] = field(default_factory=list)

    @property
    def lowers(self) -> bool:
        """Whether it can send a request below what the classifier would say; a floor cannot."""
        return self.rule.min_tier is None

    def too_low(self, max_below: float) -> bool:
        """Whether it sends a larger share than `max_below` of what it matches below the tier that is needed."""
        return self.lowers and len(self.tally) > 0 and float(np.mean(self.tally.below)) > max_below


@dataclass
class Report:
    """Each rule in order, and all rows together, those that no rule matched among them."""

    rules: list[Checked]
    everything: Tally


def check(
    settings: Settings,
    file: TrafficFile,
    context: Context,
    at_s: float,
    shown: Callable[[Iterable[LabelBatch]], Iterable[LabelBatch]] = iter,
) -> Report:
    """Decide each labelled text with and without the rules of the settings; nothing is recorded.

    `context` and `at_s`, in seconds since the epoch, stand for what labels do not tell; a column `key` goes before the
    context's, and a column `class` names the class of traffic. Rows count alike, whatever their weight. Raises
    LabelError, and what Router.load raises.
    """
    plain = msgspec.structs.replace(settings, ledger=None, state=None)
    ruled = Router.load(config=plain, clock=lambda: at_s)
    unruled = Router.load(config=msgspec.structs.replace(plain, rules=()), clock=lambda: at_s)
    told = "key" in file.table.columns
    report = Report([Checked(rule, _untold(rule, context, told)) for rule in settings.rules], Tally())
    by_name = {checked.rule.name: checked for checked in report.rules}
    for batch in shown(traffic.read_labels(file)):
        keys, classes = (batch.slices.get(name, [""] * len(batch.texts)) for name in ("key", "class"))
        for i, text in enumerate(batch.texts):
            own = msgspec.structs.replace(context, key=keys[i] or context.key)
            request = _request(text, classes[i])
            sent = ruled.decide(request, context=own).tier or Tier.COMPLEX
            alone = unruled.decide(request, context=own).tier or Tier.COMPLEX
            report.everything.add(batch.targets[i], sent, alone)
            task = read_task(request) if isinstance(request, Mapping) else _task(text)
            for place, rule in enumerate(ruled.rules.matching(task, own, at_s)):
                checked = by_name[rule.name]
                if place > 0:
                    checked.n_shadowed += 1
                    continue
                checked.tally.add(batch.targets[i], sent, alone)
                _keep(checked, Miss(int(batch.numbers[i]), text, _TIERS[int(batch.targets[i].argmax())], sent))
    return report


def _task(text: str) -> Task:
    return Task(text, TurnState.USER_TURN, len(text), has_images=False, has_tools=False)


def _keep(checked: Checked, miss: Miss) -> None:
    """Keep the worst: those that went furthest below their label, then the first."""
    if miss.label.rank > miss.sent.rank:
        checked.misses.append(miss)
        checked.misses.sort(key=lambda m: (m.sent.rank - m.label.rank, m.row))
        del checked.misses[N_WORST:]


def _request(text: str, traffic_class: str) -> str | Body:
    if not traffic_class:
        return text
    return {"messages": [{"role": "user", "content": text}], "router": {"traffic_class": traffic_class}}


def _untold(rule: Rule, context: Context, has_keys: bool) -> list[str]:
    """Labels are texts: of tools and images there are none, and headers and keys are those that were given."""
    conditions = {
        "tools": rule.tools is True,
        "images": rule.images is True,
        "headers": any(name.lower() not in context.headers for name in rule.headers),
        "key": bool(rule.key) and not (has_keys or context.key),
    }
    return [name for name, is_untold in conditions.items() if is_untold]
