"""Whether an answer is what the service's own model, as botocore has it, says that it is."""

from datetime import datetime
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from botocore.response import StreamingBody

_TYPES: dict[str, tuple[type, ...]] = {
    "blob": (bytes, StreamingBody),
    "boolean": (bool,),
    "character": (str,),
    "double": (float, int),
    "float": (float, int),
    "integer": (int,),
    "long": (int,),
    "string": (str,),
    "timestamp": (datetime,),
}

# Versioned model packages have no name though the model requires one (boto/botocore#3022).
_OMITTED_BY_AWS = {("DescribeModelPackageOutput", "ModelPackageName")}


def problems(value: Any, shape: Shape, where: str = "answer") -> list[str]:
    """What in a parsed answer does not fit its shape: members that lack, types, unknown values."""
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            return [f"{where} is no structure: {value!r}"]
        lacking = [
            name
            for name in shape.required_members
            if name not in value and (shape.name, name) not in _OMITTED_BY_AWS
        ]
        known = {name: member for name, member in shape.members.items() if name in value}
        return [f"{where} lacks {name}" for name in lacking] + [
            problem
            for name, member in known.items()
            for problem in problems(value[name], member, f"{where}.{name}")
        ]
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            return [f"{where} is no list: {value!r}"]
        return [
            problem
            for position, item in enumerate(value)
            for problem in problems(item, shape.member, f"{where}[{position}]")
        ]
    if isinstance(shape, MapShape):
        if not isinstance(value, dict):
            return [f"{where} is no map: {value!r}"]
        return [
            problem
            for key, item in value.items()
            for problem in problems(item, shape.value, f"{where}[{key!r}]")
        ]
    if isinstance(value, bool) and shape.type_name != "boolean":
        return [f"{where} is a boolean, not {shape.type_name}"]
    if not isinstance(value, _TYPES[shape.type_name]):
        return [f"{where} is no {shape.type_name}: {value!r}"]
    if (choices := getattr(shape, "enum", None)) and value not in choices:
        return [f"{where} is none of {', '.join(choices)}: {value!r}"]
    return []


def check_answers(client: Any) -> Any:
    """Let a boto3 client fail where a successful answer does not fit its shape."""

    def check(http_response: Any, parsed: Any, model: OperationModel, **_: Any) -> None:
        if http_response.status_code < 300 and model.output_shape:
            found = problems(parsed, model.output_shape)
            assert not found, f"{model.name}: {'; '.join(found)}"

    # First: later ones decode what is text in the model, such as the policies of IAM.
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register_first(f"after-call.{service}", check)
    return client
