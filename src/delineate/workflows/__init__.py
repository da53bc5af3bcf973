"""The verbs: one function for each command, only wiring; also the Python API."""
