"""What localaws runs has a Python, and packages, of its own: functions, jobs and instances."""

import base64
import io
import json
import shutil
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws import pythons
from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role

OWN = pythons.own().minor
OTHERS = [minor for minor in ("3.11", "3.12", "3.13", "3.14") if minor != OWN]
FOREIGN = next(filter(None, map(pythons.find, OTHERS)), None)
"""One of another version, if this machine has one; it is the only other one that localaws finds."""
STOOD_IN, MISSING, *_ = [minor for minor in OTHERS if not FOREIGN or minor != FOREIGN.minor]

LAMBDAS_OWN = ["awslambdaric", "boto3", "botocore", "dateutil", "jmespath", "s3transfer"]
LAMBDAS_OWN += ["simplejson", "six", "urllib3"]
NOT_IN_LAMBDA = ["flask", "localaws", "moto", "numpy", "pip", "requests", "yaml"]
FUNCTION = """
import importlib.util, os, subprocess, sys
def handler(names, context):
    code = "import importlib.util as u; print([n for n in %r if u.find_spec(n)])" % names
    children = [[sys.executable, "-c", code], ["python3", "-c", code]]
    return {
        "version": "%d.%d" % sys.version_info[:2],
        "runtime": os.environ["AWS_EXECUTION_ENV"],
        "sees": [name for name in names if importlib.util.find_spec(name)],
        "children": [subprocess.check_output(each, text=True).strip() for each in children],
    }
"""
TELL = """
import importlib.util, json, os, sys
from pathlib import Path
import onlyhere
seen = [n for n in ("boto3", "localaws", "torch", "trainer") if importlib.util.find_spec(n)]
told = {"version": onlyhere.VERSION, "sees": seen}
Path(os.environ["SAGEMAKER_BASE_DIR"], "model/told.json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """It finds no other Python than its own and FOREIGN."""
    programs = tmp_path_factory.mktemp("bin")
    (programs / "bash").symlink_to(str(shutil.which("bash")))
    if FOREIGN:
        (programs / f"python{FOREIGN.minor}").symlink_to(FOREIGN.path)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PATH", str(programs))
        patch.setenv("LOCALAWS_STAND_IN", f"python3.1,python{STOOD_IN}")
        running = LocalAws(tmp_path_factory.mktemp("pythons"), "--time-scale", "120")
    for service in ("ec2", "lambda", "sagemaker"):
        create_role(running.client("iam"), service, service)
    running.client("s3").create_bucket(Bucket="kennel")
    yield running
    running.stop()


@pytest.fixture
def function(aws: LocalAws) -> Iterator[Any]:
    """Lambda's client; the function `kennel` goes with the test."""
    client = aws.client("lambda")
    yield client
    with suppress(client.exceptions.ResourceNotFoundException):  # A test that was skipped.
        client.delete_function(FunctionName="kennel")


def create(client: Any, minor: str, code: str = FUNCTION, **files: str) -> None:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        for name, content in {"main.py": code, **files}.items():
            archive.writestr(name, content)
    client.create_function(
        FunctionName="kennel",
        Role="arn:aws:iam::123456789012:role/lambda",
        Runtime=f"python{minor}",
        Handler="main.handler",
        Timeout=60,
        Code={"ZipFile": package.getvalue()},
    )


def invoke(client: Any, event: object = ()) -> dict[str, Any]:
    answer = client.invoke(FunctionName="kennel", Payload=json.dumps(event))
    content: dict[str, Any] = json.load(answer["Payload"])
    return content


def test_a_folder_that_may_not_be_entered_has_no_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python3"
    program.symlink_to(shutil.which("sh") or "/bin/sh")
    # A name that is too long fails as a folder does that may not be entered, for root as well.
    closed = f"/{'x' * 300}"
    monkeypatch.setenv("PATH", f"{closed}:{tmp_path}")
    monkeypatch.setenv("PYENV_ROOT", closed)
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", closed)
    assert program in list(pythons._candidates("3.11"))


@pytest.mark.parametrize("minor", [OWN, "another", STOOD_IN])
def test_a_function_sees_its_zip_the_standard_library_and_lambdas_own_packages(
    function: Any, minor: str, aws: LocalAws
) -> None:
    if minor == "another":
        if not FOREIGN:
            pytest.skip("this machine has one Python only")
        minor = FOREIGN.minor
    # As AWS's, a .pth file in the zip is read.
    create(function, minor, **{"lib.pth": "lib", "lib/inside.py": ""})
    told = invoke(function, [*LAMBDAS_OWN, *NOT_IN_LAMBDA, "inside", "sqlite3"])
    assert told["sees"] == [*LAMBDAS_OWN, "inside", "sqlite3"]
    assert told["children"] == [str([*LAMBDAS_OWN, "sqlite3"])] * 2
    assert told["runtime"] == f"AWS_Lambda_python{minor}"
    assert told["version"] == (OWN if minor == STOOD_IN else minor)


def test_what_is_not_in_the_zip_cannot_be_imported(function: Any) -> None:
    create(function, OWN, "import requests\ndef handler(event, context): return 1")
    assert invoke(function) == {
        "errorMessage": "Unable to import module 'main': No module named 'requests'",
        "errorType": "Runtime.ImportModuleError",
        "requestId": "",
        "stackTrace": [],
    }


@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
def test_a_runtime_whose_python_is_not_there_is_refused_by_name(function: Any, kind: str) -> None:
    create(function, MISSING)
    with pytest.raises(ClientError, match=f"no Python {MISSING} .*`uv python install") as refused:
        function.invoke(FunctionName="kennel", InvocationType=kind)
    assert refused.value.response["Error"]["Code"] == "InvalidRuntimeException"


def test_what_stands_in_says_so_in_the_log(function: Any) -> None:
    create(function, STOOD_IN, "def handler(event, context): return 1")
    answer = function.invoke(FunctionName="kennel", LogType="Tail")
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert tail.startswith(
        f"INIT_START Runtime Version: python:{OWN}\n[WARN] localaws finds no Python for "
        f"python{STOOD_IN}: its own {pythons.own().version} stands in\n"
    )


def test_a_python_is_found_where_pyenv_or_uv_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(place: str, text: str) -> None:
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / place).chmod(0o755)

    def answers(version: str) -> str:
        return f'echo \'["/{version}", "{version}", [".so"]]\''

    # pyenv's shim of a version that it does not lead to now.
    program("bin/python3.98", "echo 'command not found' >&2; exit 127")
    program("pyenv/versions/3.98.1t/bin/python3.98", answers("3.98.1"))
    program("pyenv/versions/3.98.2/bin/python3.98", answers("3.98.2"))
    program("uv/cpython-3.97.0+freethreaded-linux-x86_64-gnu/bin/python3.97", answers("3.97.0"))
    program("uv/cpython-3.97.1-linux-x86_64-gnu/bin/python3.97", answers("3.97.1"))
    for name, place in (("PATH", "bin"), ("PYENV_ROOT", "pyenv"), ("UV_PYTHON_INSTALL_DIR", "uv")):
        monkeypatch.setenv(name, str(tmp_path / place))
    found = [pythons.find(minor) for minor in ("3.98", "3.97", "3.96")]
    assert [python and python.version for python in found] == ["3.98.2", "3.97.1", None]


def wheel(folder: Path, version: str) -> Path:
    """A package that no index has: `onlyhere`, which knows its version."""
    name = f"onlyhere-{version}"
    path = folder / f"{name}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: onlyhere\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("onlyhere.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{name}.dist-info/METADATA", metadata)
        archive.writestr(
            f"{name}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{name}.dist-info/RECORD", "")
    return path


def start_job(aws: LocalAws, name: str, **how: Any) -> None:
    aws.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/sagemaker",
        AlgorithmSpecification={
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            **how.pop("Algorithm", {}),
        },
        OutputDataConfig={"S3OutputPath": "s3://kennel/jobs/"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
        **how,
    )


def test_what_jobs_and_instances_install_is_theirs_alone(aws: LocalAws, tmp_path: Path) -> None:
    s3, sagemaker, ec2 = (aws.client(name) for name in ("s3", "sagemaker", "ec2"))
    # As the training toolkit does it, and as a job's own commands may.
    packed = tmp_path / "sourcedir.tar.gz"
    one, two, three = (wheel(tmp_path, f"{number}.0") for number in (1, 2, 3))
    (tmp_path / "main.py").write_text(TELL)
    (tmp_path / "requirements.txt").write_text(f"--no-index\n./{one.name}\n")
    with tarfile.open(packed, "w:gz") as archive:
        for name in ("main.py", "requirements.txt", one.name):
            archive.add(tmp_path / name, name)
    s3.upload_file(str(packed), "kennel", "sourcedir.tar.gz")
    for name in ("main.py", two.name):
        s3.upload_file(str(tmp_path / name), "kennel", f"code/{name}")
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://kennel/code/"}
    install = f"pip install --quiet --no-index /opt/ml/input/data/code/{two.name}"
    start_job(
        aws,
        "toolkit",
        HyperParameters={
            "sagemaker_program": "main.py",
            "sagemaker_submit_directory": "s3://kennel/sourcedir.tar.gz",
        },
    )
    start_job(
        aws,
        "commands",
        Algorithm={
            "ContainerEntrypoint": ["bash", "-c"],
            "ContainerArguments": [f"{install} && python3 /opt/ml/input/data/code/main.py"],
        },
        InputDataConfig=[{"ChannelName": "code", "DataSource": {"S3DataSource": source}}],
    )
    script = f"""#!/bin/bash
        pip install --quiet --no-index '{three}'
        python3 -c 'import onlyhere; print("version", onlyhere.VERSION)'
        shutdown -h now
    """
    started = ec2.run_instances(
        ImageId="ami-999844e0", InstanceType="t3.micro", MinCount=1, MaxCount=1, UserData=script
    )
    instance = started["Instances"][0]["InstanceId"]
    for name, version in (("toolkit", "1.0"), ("commands", "2.0")):
        ended = until(
            lambda name=name: sagemaker.describe_training_job(TrainingJobName=name),
            lambda job: job["TrainingJobStatus"] not in ("InProgress", "Stopping"),
        )
        assert ended["TrainingJobStatus"] == "Completed", ended
        s3.download_file("kennel", f"jobs/{name}/output/model.tar.gz", str(tmp_path / name))
        with tarfile.open(tmp_path / name) as model:
            (told,) = (model.extractfile(each) for each in model if each.name.endswith("told.json"))
            # An image has AWS's packages, but not the checkout that localaws was started from.
            assert json.load(told) == {"version": version, "sees": ["boto3", "torch"]}
    until(lambda: "version" in ec2.get_console_output(InstanceId=instance).get("Output", ""))
    assert "version 3.0" in ec2.get_console_output(InstanceId=instance)["Output"]
    assert list(Path(sysconfig.get_path("purelib")).glob("onlyhere*")) == []
