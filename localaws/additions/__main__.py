"""Lists the gaps of moto that the additions close, or what becomes of each operation."""

import argparse
import json

from localaws.additions import gaps
from localaws.operations import document


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m localaws.additions", description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="the gaps as a JSON list, for programs")
    kind.add_argument(
        "--operations",
        action="store_true",
        help="docs/localaws-operations.md: which operations are executed, recorded, refused",
    )
    options = parser.parse_args()
    if options.operations:
        print(document(gaps()), end="")
        return
    rows = [
        {
            "service": gap.service,
            "operation": gap.operation,
            "effect": gap.effect,
            "moto": gap.moto,
            "closed": gap.closed(),
        }
        for gap in gaps()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = "closed by moto" if row["closed"] else "open"
        print(f"{row['service']}  {row['operation']}: {state}; without it: {row['effect']}")


if __name__ == "__main__":
    main()
