"""FastAPI the tutorial way: a form with a file, and a plain function, which gets a thread.

Source: FastAPI's tutorial, "Request Files"; PyTorch's tutorial on serving a model with Flask.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File
from serving_eager import load  # type: ignore[import-not-found]

app = FastAPI()
model = load(Path(os.environ["MODEL"]))


@app.post("/predict")
def predict(file: Annotated[bytes, File()]) -> dict[str, Any]:
    answer: dict[str, Any] = model.classify(file)
    return answer
