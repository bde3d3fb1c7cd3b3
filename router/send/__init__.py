"""Sending a planned request through an SDK's client: wrap, complete, attempts after faults."""
