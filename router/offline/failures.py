"""What goes wrong: failures that a test asks for, and requests that the provider rejects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    """What the upstream does to one request for `model` (None: for any), after waiting `delay_s`.

    It rejects with `status`, or resets the connection (`is_reset`). With status 200 it answers after the delay, unless
    the client has left by then, which costs nothing. With `cut_after`, `malformed_after` or `error_after` it answers,
    and after so many frames of the stream it breaks off, sends a frame that is no JSON, or sends an error of `kind`.
    """

    status: int = 529
    kind: str = "overloaded_error"
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] | None = None
    delay_s: float = 0.0
    cut_after: int | None = None
    malformed_after: int | None = None
    error_after: int | None = None
    is_reset: bool = False

    @property
    def answers(self) -> bool:
        """Whether the request is answered at all, be it late or not to the end."""
        spoils = (self.cut_after, self.malformed_after, self.error_after)
        return self.status == 200 or any(after is not None for after in spoils)


class Rejected(Exception):
    """The provider's answer to a request that it does not serve. `param` and `code` are OpenAI's."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        failure: Failure | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.param, self.code = message, status, kind, param, code
        self.headers = failure.headers if failure else {}
        self.details = failure.details if failure else None
