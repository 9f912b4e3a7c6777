"""The Lambda function: an image or its URL in, the endpoint's answer out."""

__version__ = "0.1.0"
