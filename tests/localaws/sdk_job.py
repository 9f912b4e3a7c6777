"""Trains through SageMaker's SDK as a user does: two hosts, torchrun, checkpoints in the bucket.

    python sdk_job.py '{"role": ..., "source": ..., "bucket": ..., "hyperparameters": {...}}'

Prints the job's name. A process of its own: the SDK keeps sessions and settings for good.
"""

import json
import sys

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training.configs import (
    CheckpointConfig,
    Compute,
    InputData,
    MetricDefinition,
    OutputDataConfig,
    SourceCode,
    StoppingCondition,
)
from sagemaker.train import ModelTrainer
from sagemaker.train.distributed import Torchrun

asked = json.loads(sys.argv[1])
bucket = asked["bucket"]
trainer = ModelTrainer(
    training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.9",
    role=asked["role"],
    base_job_name="sdk",
    sagemaker_session=Session(boto3.Session(), default_bucket=bucket),
    source_code=SourceCode(source_dir=asked["source"], entry_script="entry.py"),
    distributed=Torchrun(),
    compute=Compute(instance_type="ml.m5.large", instance_count=2),
    hyperparameters=asked["hyperparameters"],
    environment={"OMP_NUM_THREADS": "1"},
    checkpoint_config=CheckpointConfig(s3_uri=f"s3://{bucket}/checkpoints/sdk"),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/jobs"),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=200),
).with_metric_definitions(
    [MetricDefinition(name="valid:accuracy", regex=r"valid_accuracy=([0-9.]+)")]
)
trainer.train([InputData(channel_name="training", data_source=f"s3://{bucket}/colours")])
sys.stdout.write(trainer._latest_training_job.training_job_name)
