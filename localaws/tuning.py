"""Runs hyperparameter tuning jobs: training jobs whose hyperparameters a search chooses."""

from localaws.execution import Service


class TuningJobs(Service):
    """Runs the tuning jobs that were created through SageMaker."""
