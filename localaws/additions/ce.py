"""Cost Explorer: cost allocation tags, without which a budget counts nothing by its tag."""

import json
from typing import Any

from botocore import xform_name
from moto.ce import responses, urls
from moto.resourcegroupstaggingapi.models import resourcegroupstaggingapi_backends

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, REGION, answer_with, page

_STATUS = ("Active", "Inactive")


class Answers(responses.CostExplorerResponse):
    """Moto's answers, and more."""

    def list_cost_allocation_tags(self) -> str:
        """The keys that resources have, or that were activated; only the latter count costs."""
        active: set[str] = self._active()
        status, wanted = self._get_param("Status"), self._get_param("TagKeys")
        tags = [
            {"TagKey": key, "Type": "UserDefined", "Status": _STATUS[key not in active]}
            for key in sorted(active | self._used())
            if not wanted or key in wanted
        ]
        if self._get_param("Type") == "AWSGenerated":
            tags = []
        tags = [tag for tag in tags if status in (None, tag["Status"])]
        found, more = page(tags, self._get_param("NextToken"), self._get_param("MaxResults") or 100)
        return json.dumps({"CostAllocationTags": found, **more})

    def update_cost_allocation_tags_status(self) -> str:
        """Let keys count costs, or no longer; keys that nothing has had are an error each."""
        active, used = self._active(), self._used()
        errors = []
        for entry in self._get_param("CostAllocationTagsStatus"):
            key = entry["TagKey"]
            if key not in active | used:
                told = f"Tag keys not found: {key}"
                errors.append({"TagKey": key, "Code": "TagKeysNotFoundException", "Message": told})
            elif entry["Status"] == "Active":
                active.add(key)
            else:
                active.discard(key)
        return json.dumps({"Errors": errors})

    def _active(self) -> set[str]:
        held: set[str] = vars(self.ce_backend).setdefault("active_tag_keys", set())
        return held

    @staticmethod
    def _used() -> set[str]:
        backend: Any = resourcegroupstaggingapi_backends[ACCOUNT][REGION]
        token, keys = None, set()
        while True:
            token, found = backend.get_tag_keys(token)
            keys |= set(found)
            if not token:
                return keys


def _missing(operation: str) -> Gap:
    return Gap(
        "ce",
        operation,
        "nobody sees that a budget counts nothing by its tag",
        lambda: hasattr(responses.CostExplorerResponse, xform_name(operation)),
    )


GAPS = [_missing("ListCostAllocationTags"), _missing("UpdateCostAllocationTagsStatus")]


def install() -> None:
    """Put the additions in moto's place."""
    answer_with(urls, Answers)
