"""Commands of `make` for messages: what the user gave to this one, the next one needs, too."""

import os
import shlex

# What the user gave to `make` that later commands need, too: all of them, or those about a run.
_KEPT_ALWAYS = ("OUT", "LOCALAWS_PORT")
_KEPT_FOR_RUNS = (
    "DATASET",
    "BACKBONE",
    "UNFREEZE",
    "EPOCHS",
    "ENGINE",
    "INSTANCE_TYPE",
    "FLAGS",
)


def make_command(goal: str, environment: str, *, about_run: bool = False, **given: str) -> str:
    """A command of `make`, for a message: it works as it stands.

    Args:
        goal: The target.
        environment: ENV.
        about_run: Whether it needs what says which run is meant, such as DATASET.
        given: More variables.
    """
    kept = (*_KEPT_FOR_RUNS, *_KEPT_ALWAYS) if about_run else _KEPT_ALWAYS
    # Make passes what it was given on in the environment.
    told = {name: os.environ.get(name, "") for name in kept if "MAKELEVEL" in os.environ}
    variables = {**given, "ENV": environment, **told} | given
    words = (f"{name}={value}" for name, value in variables.items() if value)
    return " ".join(["make", goal, *map(shlex.quote, words)])
