"""What one call may ask of the router: the `router` field of its body."""

from __future__ import annotations

from typing import Any

import msgspec

from router.errors import RequestError
from router.types import Body, Tier


class CallOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one call may ask of the router: the body's `router` field, which is taken out before sending.

    `min_tier` and `max_tier` bound where the call may go, faults included; None leaves that side open.
    `conversation_id` names the conversation, which is else known by its history; calls of one `traffic_class` share
    what is learned about caching them. `dry_run` decides and notes it, but sends the call to the top tier.
    """

    operating_point: str | None = None
    min_tier: Tier | None = None
    max_tier: Tier | None = None
    conversation_id: str | None = None
    traffic_class: str | None = None
    dry_run: bool = False

    @classmethod
    def of(cls, body: Body) -> CallOptions:
        """Read from a body. Raises RequestError, naming the field, for an unknown option or tier."""
        try:
            options = msgspec.convert(body.get("router") or {}, cls)
        except (msgspec.ValidationError, UnicodeEncodeError) as exc:
            raise RequestError(
                f"`router` is {body['router']!r}: {exc}; expected any of {', '.join(cls.__struct_fields__)}"
            ) from exc
        if options.min_tier and options.max_tier and not options.allow(options.min_tier):
            raise RequestError(f"`router` asks for min_tier {options.min_tier} above max_tier {options.max_tier}")
        return options

    def allow(self, tier: Tier) -> bool:
        """Whether a tier is within the bounds."""
        is_high_enough = self.min_tier is None or tier.at_least(self.min_tier)
        return is_high_enough and (self.max_tier is None or self.max_tier.at_least(tier))


def unasked(body: Body) -> dict[str, Any]:
    """A body as it is sent: without what it asks of the router."""
    return {name: value for name, value in body.items() if name != "router"}
