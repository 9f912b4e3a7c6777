"""The main process of SageMaker's PyTorch image; the settings go to argv[1], not to /etc."""

import sys

from sagemaker_pytorch_serving_container import (  # type: ignore[import-not-found]
    serving,
    torchserve,
)

torchserve.TS_CONFIG_FILE = sys.argv[1]
serving.main()
