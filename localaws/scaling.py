"""Application Auto Scaling, acting."""

from localaws.execution import Service


class Scaling(Service):
    """Changes the capacity of scalable targets by their policies and schedules."""
