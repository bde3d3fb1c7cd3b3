"""An embedded upstream for the demo and the tests: both providers' APIs on a local socket, strict, caches billed.

Replies are simulated or scripted; everything around them is meant to be what a provider does: required fields, what
each model rejects, streaming events, the prefix caches with their breakpoints, minimum and TTL, batches, and a bill.
It is written from the documents and the SDKs' types alone, because it is what checks the rest of this package.
"""

from router.offline.account import Bill, Exchange
from router.offline.failures import Failure
from router.offline.replies import Reply, ToolCall
from router.offline.server import Upstream

__all__ = ["Bill", "Exchange", "Failure", "Reply", "ToolCall", "Upstream"]
