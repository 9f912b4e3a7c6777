"""Metrics, the alarms that watch them, and the scaling that acts on them."""
