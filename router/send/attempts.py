"""The attempts of one request: as many as allowed on each model, then a tier up, within one budget of waiting."""

from __future__ import annotations

from router.decide.rules import Context
from router.engine import Router
from router.send import faults
from router.types import Body, Plan


class Attempts:
    """`plan` is what to send now; `notes` say what failed so far."""

    def __init__(
        self,
        router: Router,
        plan: Plan,
        body: Body,
        retries: int,
        context: Context | None = None,
        *,
        has_one_address: bool = False,
    ) -> None:
        """`context` is the one that `plan` was made with. `has_one_address`: one server stands for every model."""
        self.plan = plan
        self.notes: list[str] = []
        self._router = router
        self._body = body
        self._retries = retries
        self._context = context
        self._has_one_address = has_one_address
        self._attempt = 0
        self._waited_s = 0.0

    def again(self, error: Exception) -> float | None:
        """Seconds until another attempt, on the same model or the next stronger one; None when there is to be none."""
        fault = faults.read_fault(error)
        if fault is None:
            return None
        model = self.plan.decision.model
        self._router.breaker.failed(model)
        self.notes.append(f"{model}: {fault.what}")
        wait_s = faults.pause(fault, self._attempt)
        if self._attempt < self._retries and self._waited_s + wait_s <= faults.BUDGET_S:
            self._attempt += 1
            self._waited_s += wait_s
            return wait_s
        if not fault.moves_up or (fault.is_of_address and self._has_one_address):
            return None
        why = f"{model} failed {self._attempt + 1} times: {fault.what}"
        higher = self._router.move_up(self.plan, self._body, why, self._context, elsewhere=fault.is_of_address)
        if higher is None:
            return None
        self._attempt = 0
        self.plan = higher
        return 0.0

    def answered(self) -> None:
        """The provider has answered: the model works."""
        self._router.breaker.succeeded(self.plan.decision.model)
