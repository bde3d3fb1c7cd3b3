"""The attempts of one request: as many as allowed on each model, then a tier up, within one budget of waiting."""

from __future__ import annotations

import logging

from router.decide.rules import Context
from router.engine import Router
from router.errors import RequestError
from router.send import faults
from router.types import Body, Plan, Reach, Record, Usage

_logger = logging.getLogger("tierwise")


class Attempts:
    """`plan` is what to send now; `notes` say what failed so far."""

    def __init__(
        self, router: Router, body: Body, plan: Plan, retries: int, context: Context | None, reach: Reach
    ) -> None:
        """`plan` was made of `body`, `context` and `reach`; `retries` are those on one model."""
        self.plan = plan
        self.notes: list[str] = []
        self._router = router
        self._body = body
        self._retries = retries
        self._context = context
        self._reach = reach
        self._attempt = 0
        self._waited_s = 0.0
        self._was_too_long = False

    def again(self, error: Exception) -> float | None:
        """Seconds until another attempt, on the same model or the next stronger one; None when there is to be none."""
        fault = faults.read_fault(error)
        if fault is None:
            return self._enlarged() if faults.is_too_long(error) else None
        model = self.plan.decision.model
        self._router.policy.breaker.failed(model)
        self.notes.append(f"{model}: {fault.what}")
        wait_s = faults.pause(fault, self._attempt)
        if self._attempt < self._retries and self._waited_s + wait_s <= faults.BUDGET_S:
            self._attempt += 1
            self._waited_s += wait_s
            return wait_s
        if not fault.moves_up or (fault.is_of_address and self._reach is Reach.SDK):
            return None
        why = f"{model} failed {self._attempt + 1} times: {fault.what}"
        return 0.0 if self._moved_up(why, elsewhere=fault.is_of_address) else None

    def _enlarged(self) -> float | None:
        """No wait, on a stronger model with a larger window, once: the estimate of what the prompt takes was wrong."""
        if self._was_too_long:
            return None
        self._was_too_long, model = True, self.plan.decision.model
        why = f"{model} does not hold the prompt"
        if not self._moved_up(why, larger=True):
            return None
        self.notes.append(f"{model}: the prompt is too long")
        return 0.0

    def _moved_up(self, why: str, **bounds: bool) -> bool:
        """Whether a stronger model takes the call; one that speaks another format may not take its body."""
        try:
            higher = self._router.move_up(self.plan, self._body, why, self._context, reach=self._reach, **bounds)
        except RequestError as exc:
            self.notes.append(f"no stronger model was asked: {exc}")
            return False
        if higher is None:
            return False
        self._attempt, self.plan = 0, higher
        return True

    def answered(self) -> None:
        """The provider has answered: the model works."""
        self._router.policy.breaker.succeeded(self.plan.decision.model)

    def record(
        self, usage: Usage, notes: tuple[str, ...] = (), reply_chars: int = 0, *, is_cut: bool = False
    ) -> Record | None:
        """Account for the reply, as `Router.record`; None, and a warning in the log, where that fails."""
        try:
            given = (*self.notes, *notes)
            return self._router.record(self.plan, usage, given, reply_chars=reply_chars, is_cut=is_cut)
        except Exception as exc:  # the provider has answered and will bill: the reply must reach the caller
            _logger.warning("no record of a call to %s: %s: %s", self.plan.decision.model, type(exc).__name__, exc)
            return None
