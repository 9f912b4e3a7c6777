"""SageMaker's training jobs."""

from moto.sagemaker import responses

from localaws.additions import Gap


class TrainingAnswers(responses.SageMakerResponse):
    """Moto's answers about training jobs, mended."""


GAPS: list[Gap] = []
