"""A Lambda function the tutorial way: boto3, requests and Pillow, all in its zip.

Stands for the usual front of an image endpoint: decode the photo, shrink it, ask the endpoint, pass
its labels on. Follows AWS's guides to calling an endpoint from Lambda with boto3 and to zips of
Python functions, which advise to pack boto3 too.
"""

import base64
import io
import json
import os
from typing import Any

import boto3
import requests
from PIL import Image

runtime = boto3.client("sagemaker-runtime")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer with the labels of the photo in "image" (base64) or behind "url"."""
    if "url" in event:
        photo = requests.get(event["url"], timeout=5).content
    else:
        photo = base64.b64decode(event["image"])
    image = Image.open(io.BytesIO(photo)).convert("RGB").resize((224, 224))
    small = io.BytesIO()
    image.save(small, format="JPEG")
    response = runtime.invoke_endpoint(
        EndpointName=os.environ["ENDPOINT_NAME"],
        ContentType="image/jpeg",
        Body=small.getvalue(),
    )
    predictions = json.loads(response["Body"].read())["predictions"]
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps([prediction["label"] for prediction in predictions[:5]]),
    }
