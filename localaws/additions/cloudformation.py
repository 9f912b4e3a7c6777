"""CloudFormation: a stack whose resources nothing here makes is refused, and not half made.

Source: "Template anatomy" of its user guide: CloudFormation refuses types that it does not know.
"""

import json
from collections.abc import Mapping
from typing import Any

from moto.cloudformation.parsing import NULL_MODELS, ResourceMap, get_model_map

from localaws.additions import Gap
from localaws.additions._moto import plain_client, refuses, wrap
from localaws.operations import RefusedError

_TEMPLATE = {"Resources": {"Probe": {"Type": "AWS::Nowhere::Probe"}}}
_MADE_OF_NOTHING = {*NULL_MODELS, "AWS::CDK::Metadata"}


def _refuses_unknown_types() -> bool:
    with plain_client("cloudformation") as client:
        template = json.dumps(_TEMPLATE)
        try:
            return refuses(lambda: client.create_stack(StackName="probe", TemplateBody=template))
        except NotImplementedError:
            return True


GAPS = [
    Gap(
        service="cloudformation",
        operation="CreateStack, UpdateStack",
        effect="a stack is complete though nothing of it was made: its types are not known",
        closed=_refuses_unknown_types,
    ),
]


def install() -> None:
    """Look at a template's types before anything is made."""

    def made(original: Any, stack: ResourceMap, *told: Any, **named: Any) -> None:
        original(stack, *told, **named)
        _require_known(stack._resource_json_map)

    def updated(original: Any, stack: ResourceMap, template: Any, *told: Any) -> None:
        _require_known(template.get("Resources", {}))
        original(stack, template, *told)

    wrap(ResourceMap, "__init__", made)
    wrap(ResourceMap, "update", updated)


def _require_known(resources: Mapping[str, Any]) -> None:
    types = {str(resource.get("Type")) for resource in resources.values()}
    for kind in sorted(types - _MADE_OF_NOTHING - set(get_model_map())):
        if not kind.startswith("Custom::"):
            raise RefusedError(f"nothing here makes {kind}")
