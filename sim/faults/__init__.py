"""Faults: crash points, failing calls, power cuts. A filter tells of each call that changes a machine's disk."""
