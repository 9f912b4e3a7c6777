"""SageMaker's tuning jobs."""

from moto.sagemaker import responses

from localaws.additions import Gap


class TuningAnswers(responses.SageMakerResponse):
    """Moto's answers about tuning jobs, mended."""


GAPS: list[Gap] = []
