"""The last steps of `make demo`: serve the model, answer through Lambda, measure, write a report.

The steps before (data, search, training, evaluation, package) have left their results in the run's
folder; they are read, not imported.
"""

import argparse
import base64
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localaws.functions import InvocationResult, LambdaFunction
from localaws.hosting import HostingError, RuntimeGateway, ServedEndpoint
from localaws.report import Answered, render

ENDPOINT = "kennel"
HANDLER = "lambda_src.handler.handler"
LONE_REQUESTS = 400
CLIENTS = 8
LOAD_SECONDS = 4.0


class DemoError(Exception):
    """A step of the demonstration failed; the message says which and how."""


@dataclass(frozen=True)
class Plan:
    """What is demonstrated.

    Attributes:
        dataset: The data set's name, for people.
        data: Its folder, with dataset_report.json and test/.
        run: Folder of the run: tune/, model/, training/, evaluation/, served/, model.tar.gz.
        lambda_zip: The function's zip.
        output: Folder for the report and the logs.
        started: When the chain began, in seconds since 1970.
    """

    dataset: str
    data: Path
    run: Path
    lambda_zip: Path
    output: Path
    started: float


def demonstrate(plan: Plan) -> dict[str, Any]:
    """Serve, invoke, measure, stop all that was started, and write report.html and report.json.

    Returns:
        The content of report.json.

    Raises:
        DemoError: A photo was not answered as it should be.
        HostingError: A part did not start.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    photos = test_photos(plan.data)
    with ServedEndpoint(plan.run / "model.tar.gz", plan.output / "endpoint.log") as endpoint:
        say(f"serving {plan.run / 'model.tar.gz'} at {endpoint.url}")
        answers, lone_ms = ask_alone(endpoint.url, photos)
        per_second = ask_together(endpoint.url, photos)
        say(f"{LONE_REQUESTS} lone requests, then {CLIENTS} clients: {per_second:.0f} requests/s")
        chosen = max(answers, key=lambda answered: answered.probability)
        result = invoke(plan, endpoint.url, chosen.photo)
    report = gather(plan, lone_ms, per_second, chosen, result)
    (plan.output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    pages = {name: plan.run / path for name, path in PAGES.items()}
    (plan.output / "report.html").write_text(render(report, answers, lone_ms, pages))
    return report


PAGES = {"curves": "training/learning_curves.svg", "evaluation": "evaluation/evaluation.html"}


def test_photos(data: Path) -> list[Path]:
    """List the test photos, one of each class in turn: the first few are of many classes."""
    folders = sorted(folder for folder in (data / "test").iterdir() if folder.is_dir())
    columns = [sorted(path for path in folder.rglob("*") if path.is_file()) for folder in folders]
    depth = max(map(len, columns))
    return [column[row] for row in range(depth) for column in columns if row < len(column)]


def ask_alone(url: str, photos: list[Path]) -> tuple[list[Answered], list[float]]:
    """Ask for photos one after the other; give each photo's answer once, and all times in ms."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    answers: dict[Path, Answered] = {}
    times = []
    for photo, _ in zip(cycle(photos), range(LONE_REQUESTS), strict=False):
        body = photo.read_bytes()
        started = time.perf_counter()
        answer = ask(connection, body)
        times.append((time.perf_counter() - started) * 1000)
        best = answer["predictions"][0]
        answers[photo] = Answered(photo, best["label"], best["probability"])
    connection.close()
    return list(answers.values()), times


def ask_together(url: str, photos: list[Path]) -> float:
    """Let several clients ask as fast as they get answers; give the answers a second."""
    bodies = [photo.read_bytes() for photo in photos[:64]]
    deadline = time.monotonic() + LOAD_SECONDS

    def client(_: int) -> int:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
        count = 0
        for body in cycle(bodies):
            if time.monotonic() >= deadline:
                break
            ask(connection, body)
            count += 1
        connection.close()
        return count

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS))) / LOAD_SECONDS


def ask(connection: HTTPConnection, body: bytes) -> dict[str, Any]:
    """Classify one photo at the endpoint.

    Raises:
        DemoError: The answer is no 200.
    """
    connection.request("POST", "/invocations", body, {"Content-Type": "application/octet-stream"})
    response = connection.getresponse()
    content: dict[str, Any] = json.loads(response.read())
    if response.status != 200:
        raise DemoError(f"the endpoint answered {response.status}: {content['message']}")
    return content


def invoke(plan: Plan, url: str, photo: Path) -> InvocationResult:
    """Run the function's zip under AWS's runtime interface client with a photo as its event.

    Raises:
        DemoError: The function failed.
    """
    with RuntimeGateway({ENDPOINT: url}) as gateway:
        environment = {
            "ENDPOINT_NAME": ENDPOINT,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": gateway.url,
            "POWERTOOLS_TRACE_DISABLED": "true",
        }
        log = plan.output / "lambda.log"
        with LambdaFunction(plan.lambda_zip, HANDLER, log, environment) as function:
            result = function.invoke({"image": base64.b64encode(photo.read_bytes()).decode()})
    if result.error:
        raise DemoError(f"the Lambda function failed: {result.error['errorMessage']}; see {log}")
    return result


def gather(
    plan: Plan, lone_ms: list[float], per_second: float, chosen: Answered, result: InvocationResult
) -> dict[str, Any]:
    """Put the figures of all steps together."""

    def step(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((plan.run / name).read_text())
        return content

    data = json.loads((plan.data / "dataset_report.json").read_text())
    search, training = step("tune/search.json"), step("training/training_report.json")
    evaluation, served, package = (
        step(name)
        for name in ("evaluation/evaluation.json", "served/evaluation.json", "package.json")
    )
    cuts = statistics.quantiles(lone_ms, n=100)
    answer = json.loads(result.payload["body"])
    return {
        "dataset": {"name": plan.dataset, "classes": len(data["classes"]), **data["splits"]},
        "tuning": {name: search[name] for name in ("trials", "best", "seconds")},
        "training": {n: training[n] for n in ("epochs", "seconds", "images_per_second")},
        "evaluation": {name: evaluation[name] for name in ("top1", "top5", "ece")},
        "package": {
            **{name: package[name] for name in ("precision", "bytes", "sha256", "agreement")},
            "top1_served": served["top1"],
        },
        "endpoint": {"p50_ms": cuts[49], "p99_ms": cuts[98], "requests_per_second": per_second},
        "lambda": {
            "statusCode": result.payload["statusCode"],
            "label": answer["predictions"][0]["label"] if "predictions" in answer else None,
            "expected": chosen.expected,
            "cold_start_ms": result.init_ms,
            "zip_bytes": plan.lambda_zip.stat().st_size,
        },
        "seconds_total": time.time() - plan.started,
    }


def say(line: str) -> None:
    """Tell the user what goes on."""
    print(line, flush=True)


def main() -> None:
    """Run the command line; exit 1 if the function's answer is not the right one."""
    parser = argparse.ArgumentParser(prog="python -m localaws.demo", description=main.__doc__)
    for flag in ("data", "run", "lambda-zip", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--started", type=float, default=time.time())
    plan = Plan(**vars(parser.parse_args()))
    try:
        report = demonstrate(plan)
    except (DemoError, HostingError, OSError) as error:
        sys.exit(f"error: {error}")
    answer = report["lambda"]
    say(
        f"Lambda answered {answer['statusCode']}: {answer['label']}, "
        f"expected {answer['expected']}\n"
        f"top-1 on test {report['evaluation']['top1']:.4f}, as served "
        f"{report['package']['top1_served']:.4f} ({report['package']['precision']})\n"
        f"report: {plan.output / 'report.html'} after {report['seconds_total']:.0f} s"
    )
    if (answer["statusCode"], answer["label"]) != (200, answer["expected"]):
        sys.exit("error: the answer through Lambda is not the expected one")


if __name__ == "__main__":
    main()
