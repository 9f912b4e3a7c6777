"""Runs Terraform over the stacks: finds program and provider, and prepares the variables."""

from terraform.cli import binary, provider


def environment() -> dict[str, str]:
    """This process's environment, made fit for Terraform to find the AWS provider.

    Raises:
        KennelError: There is no Terraform, or no provider; the message says what to do.
    """
    return provider.environment(binary.resolve())
