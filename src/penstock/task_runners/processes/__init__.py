"""Long-lived worker processes on this machine as an engine."""
