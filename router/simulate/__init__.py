"""What routing and caching would cost for a workload or a trace; nothing is sent."""
