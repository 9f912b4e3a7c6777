"""Endpoints: containers that serve models, released and scaled as SageMaker does."""
