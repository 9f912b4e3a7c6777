"""Runs EC2 instances: their user data, as a process."""

from localaws.execution import Service


class Instances(Service):
    """Runs the instances that were launched through EC2."""
