"""The catalogue: its facts against others' copies of them, Terraform's defaults, and its parser."""

import gzip
import importlib.util
import json
import re
import tomllib
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.core.utils import get_service_model
from moto.ec2.models.instance_types import INSTANCE_TYPES

from trainer import catalogue
from trainer.catalogue import Entry, Machine, load, parse
from trainer.errors import KennelError, UsageError

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "terraform/modules"

TEXT = """
[registry]
account = "111111111111"
regions = ["us-east-1"]
source = "https://docs.aws.amazon.com/"
checked = "2026-11"

[lambda_runtime."python3.13"]
end_of_patch = 2029-06-30
source = "https://docs.aws.amazon.com/"
checked = "2026-11"

[machine]
"m5.large" = { vcpus = 2, memory_gib = 8 }
"""


def package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations)))


def test_each_fact_was_checked_this_year_or_later() -> None:
    for entry in load().entries.values():
        assert "2026-01" <= entry.checked <= f"{date.today():%Y-%m}", entry


def test_registries_and_images_are_those_of_the_sagemaker_sdk() -> None:
    path = package("sagemaker") / "core/image_uri_config/pytorch-amzn2023.json"
    version = json.loads(path.read_text())["training"]["versions"]["2.13"]
    ours = load().registries
    assert ours == {region: version["registries"].get(region) for region in ours}
    for kind in ("cpu", "gpu"):
        image = f"{version['repository']}:2.13-{version['container_version'][kind]}"
        assert load().entries["training_image", kind].value == image


def test_machines_are_as_ec2_describes_them() -> None:
    path = package("moto") / "ec2/resources/instance_types.json.gz"
    described = json.loads(gzip.decompress(path.read_bytes()))
    for name, found in load().machines.items():
        gpus = described[name].get("GpuInfo", {}).get("Gpus", [])
        assert found == Machine(
            vcpus=described[name]["VCpuInfo"]["DefaultVCpus"],
            memory_gib=described[name]["MemoryInfo"]["SizeInMiB"] // 1024,
            gpus=sum(gpu["Count"] for gpu in gpus),
        ), name
        assert catalogue.has_gpu(name) == bool(gpus)


@pytest.mark.parametrize(
    ("kind", "name", "path", "text"),
    [
        (
            "machine_image",
            "pytorch",
            "modules/ec2_trainer/variables.tf",
            'default     = "{}"',
        ),
        (
            "lambda_runtime",
            "python3.13",
            "modules/inference_lambda/variables.tf",
            'default     = "{}"',
        ),
        (
            "lambda_runtime",
            "python3.13",
            "stacks/serving/variables.tf",
            'runtime              = optional(string, "{}")',
        ),
        ("build_image", "codebuild", "modules/registry/main.tf", '"{}"'),
    ],
)
def test_terraform_has_the_same(kind: catalogue.Kind, name: str, path: str, text: str) -> None:
    entry = load().entries[kind, name]
    assert text.format(entry.value) in (ROOT / "terraform" / path).read_text()


def test_the_roles_may_pull_from_each_regions_registry() -> None:
    source = (MODULES / "roles/images.tf").read_text()
    assert dict(re.findall(r'^ +([a-z0-9-]+) += "(\d{12})"$', source, re.M)) == load().registries


def test_notebook_platforms_are_those_that_terraform_takes() -> None:
    source = (MODULES / "notebook/variables.tf").read_text()
    known = {value for (kind, value) in load().entries if kind == "notebook_platform"}
    taken = re.search(r"try\(contains\(\[(.*?)\]", source)
    assert taken
    assert set(re.findall(r'"(.*?)"', taken[1])) == known


def test_localaws_publishes_what_is_used() -> None:
    ecr = (ROOT / "localaws/additions/ecr.py").read_text()
    for kind in ("cpu", "gpu"):
        repository, _, tag = load().entries["training_image", kind].value.partition(":")
        assert f'"{repository}"' in ecr
        assert f'"{tag}"' in ecr


def test_a_training_image_is_in_its_region_s_registry() -> None:
    image = catalogue.training_image("eu-south-1", gpu=True)
    assert re.fullmatch(r"692866216735\.dkr\.ecr\.eu-south-1\.amazonaws\.com/pytorch:.*cu.*", image)
    assert ".amazonaws.com.cn/" in catalogue.training_image("cn-north-1", gpu=False)
    with pytest.raises(UsageError, match="no registry of training images in mars-north-1"):
        catalogue.training_image("mars-north-1", gpu=False)


def test_sagemaker_s_machines_are_ec2_s() -> None:
    assert catalogue.machine("ml.g5.xlarge") == catalogue.machine("g5.xlarge") == Machine(4, 16, 1)
    with pytest.raises(KennelError, match=r"ml\.z9\.nano .*describe-instance-types"):
        catalogue.machine("ml.z9.nano")


def test_what_is_unknown_names_what_is_known() -> None:
    assert load().find("lambda_runtime", "python3.13").end_of_patch == date(2029, 6, 30)
    with pytest.raises(KennelError, match=r"python2\.7 .*python3\.13.*add it"):
        load().find("lambda_runtime", "python2.7")


@pytest.mark.parametrize(
    ("end", "left"), [(date(2026, 1, 3), 2), (date(2025, 12, 31), -1), (None, None)]
)
def test_days_left(end: date | None, left: int | None) -> None:
    assert Entry("x", end, "", "").days_left(date(2026, 1, 1)) == left


@pytest.mark.parametrize(
    ("old", "new", "culprit"),
    [
        ("2029-06-30", '"soon"', "end_of_patch of [lambda_runtime.python3.13]"),
        ("2029-06-30", "2029-06-30T00:00:00", "end_of_patch of [lambda_runtime.python3.13]"),
        ("[lambda_runtime.", "[lambda.", "[lambda]"),
        ('checked = "2026-11"', 'checked = "2026-13"', "checked of [registry]"),
        ("https://docs.aws.amazon.com/", "https://example.com/", "source of [registry]"),
        ("111111111111", "1111", "account of us-east-1"),
        ('["us-east-1"]', '"us-east-1"', "regions of [registry]"),
        ("vcpus = 2", "cores = 2", "m5.large of [machine]"),
        ("vcpus = 2", "vcpus = 0", "m5.large of [machine]"),
        ("vcpus = 2", 'vcpus = "2"', "m5.large of [machine]"),
        ("end_of_patch =", "end =", "end of [lambda_runtime.python3.13]"),
        ("[registry]", "[registry", "is not TOML"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, old: str, new: str, culprit: str) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(KennelError, match=re.escape(culprit)) as error:
        load(path)
    assert str(path) in str(error.value)


names = st.text("abc.-0123456789", min_size=1, max_size=12)


@given(names, names, st.none() | st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(1, 999))
def test_what_is_written_is_read(name: str, value: str, end: date | None, size: int) -> None:
    last = end.isoformat() if end else '"rolling"'
    text = (
        f'{TEXT}\n"x{name}" = {{ vcpus = {size}, memory_gib = {size} }}\n'
        f'[inference_ami."{name}"]\nvalue = "{value}"\nend_of_patch = {last}\n'
        'source = "https://aws.amazon.com/x"\nchecked = "2026-11"\n'
    )
    found = parse(tomllib.loads(text))
    expected = Entry(value, end, "https://aws.amazon.com/x", "2026-11")
    assert found.entries["inference_ami", name] == expected
    assert found.machines[f"x{name}"] == Machine(size, size)


_LEAVES = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.booleans(), st.floats())
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2)
)


@given(st.data())
def test_damage_raises_no_other_error(data: st.DataObject) -> None:
    content: dict[str, Any] = tomllib.loads(TEXT)
    place: dict[str, Any] = content
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(_VALUES)
    with suppress(KennelError):
        parse(content)


def test_disks_of_an_instance_type_are_those_that_ec2_tells() -> None:
    told = {
        f"ml.{name}": bool(facts["InstanceStorageSupported"])
        for name, facts in INSTANCE_TYPES.items()
    }
    model = get_service_model("sagemaker")
    for shape in ("TrainingInstanceType", "ProductionVariantInstanceType", "InstanceType"):
        for name in model.shape_for(shape).enum:
            assert catalogue.has_local_disks(name) == told.get(
                name, catalogue.has_local_disks(name)
            )
    assert catalogue.has_local_disks("g5.xlarge")
    assert not catalogue.has_local_disks("ml.m5.large")
