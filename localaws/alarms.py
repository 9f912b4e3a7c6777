"""Evaluates CloudWatch alarms."""

from localaws.execution import Service


class Alarms(Service):
    """Gives every alarm its state."""
