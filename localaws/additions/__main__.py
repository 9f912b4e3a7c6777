"""Lists the gaps of moto that the additions close, and whether the installed moto has them."""

import argparse
import json

from localaws.additions import gaps


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m localaws.additions", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON list, for programs")
    options = parser.parse_args()
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
