"""Commands of `make` for messages: what the user gave to this one, the next one needs, too."""

import os
import shlex

# What the user gave to `make` that later commands need, too: all of them, or those about a run.
# What approves, deletes or begins anew is never suggested.
_KEPT_ALWAYS = ("OUT", "VENV", "LOCALAWS_PORT")
_KEPT_FOR_RUNS = (
    "DATASET",
    "BACKBONE",
    "UNFREEZE",
    "EPOCHS",
    "CONFIG",
    "TRIALS",
    "PARALLEL",
    "ENGINE",
    "INSTANCES",
    "INSTANCE_TYPE",
    "FLAGS",
    "PORT",
)


def make_command(goal: str, environment: str = "", *, about_run: bool = False, **given: str) -> str:
    """A command of `make`, for a message: it works as it stands.

    Args:
        goal: The target.
        environment: ENV; if empty, as the user gave it, or none.
        about_run: Whether it needs what says which run is meant, such as DATASET.
        given: More variables; an empty one is left out, whatever the user gave.
    """
    kept = (*_KEPT_FOR_RUNS, *_KEPT_ALWAYS) if about_run else _KEPT_ALWAYS
    kept = kept if environment else ("ENV", *kept)
    # Make passes what it was given on in the environment.
    told = {name: os.environ.get(name, "") for name in kept if "MAKELEVEL" in os.environ}
    variables = {**given, "ENV": environment, **told} | given
    words = (f"{name}={shlex.quote(value)}" for name, value in variables.items() if value)
    return " ".join(["make", goal, *words])
