"""Runs training jobs as processes."""

from localaws.execution import Service


class TrainingJobs(Service):
    """Runs the training jobs that were created through SageMaker."""
