"""What the tests of training, processing and transform jobs do with an account."""

from tests.localaws.conftest import LocalAws
from tests.localaws.roles import create_role


class JobAccount:
    """A localaws with a bucket, and a role that SageMaker may take."""

    def __init__(self, aws: LocalAws, role: str, group: str) -> None:
        """Make both.

        Args:
            aws: The localaws.
            role: The role's name.
            group: The jobs' log group.
        """
        self.aws = aws
        self.s3 = aws.client("s3")
        self.sagemaker = aws.client("sagemaker")
        self.role = create_role(aws.client("iam"), role, "sagemaker")
        self.s3.create_bucket(Bucket="kennel")
        self._group = group

    def put(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket="kennel", Key=key, Body=content)

    def read(self, key: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket="kennel", Key=key)["Body"].read()
        return content

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket="kennel", Prefix=prefix)
        return [content["Key"] for content in found.get("Contents", [])]

    def results(self, name: str) -> dict[str, bytes]:
        """What a job has left, by what follows its prefix."""
        prefix = f"out/{name}/"
        return {key.removeprefix(prefix): self.read(key) for key in self.keys(prefix)}

    def log(self, name: str) -> dict[str, list[str]]:
        """A job's messages by stream."""
        logs = self.aws.client("logs")
        try:
            streams = logs.describe_log_streams(
                logGroupName=self._group, logStreamNamePrefix=f"{name}/"
            )
        except logs.exceptions.ResourceNotFoundException:
            return {}  # The first job of the account makes it.
        return {
            stream: [
                event["message"]
                for event in logs.get_log_events(
                    logGroupName=self._group, logStreamName=stream, startFromHead=True
                )["events"]
            ]
            for stream in (found["logStreamName"] for found in streams["logStreams"])
        }
