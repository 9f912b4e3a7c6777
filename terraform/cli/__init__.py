"""Runs Terraform over the stacks: finds program and provider, and prepares the variables."""

from terraform.cli import binary, provider
from trainer.fence import Fence


def environment(fence: Fence | None = None) -> dict[str, str]:
    """This process's environment, made fit for Terraform to find the AWS provider.

    Args:
        fence: What closed it, if anything did.

    Raises:
        KennelError: There is no Terraform, or no provider; the message says what to do.
    """
    return provider.environment(binary.resolve(), fence)
