"""What all pages share: templates that need nothing from elsewhere, and how figures are written."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.names import counted

WAY_BACK = "<!-- the way back -->"
"""Where a page leads to the one over all of them, if it is written where that one is kept."""

_SPACE = "\N{NO-BREAK SPACE}"


def render_page(template: str, **content: object) -> str:
    """Fill a template of `trainer/templates`; all text from outside is escaped.

    Args:
        template: Its file name.
        content: What the template names.
    """
    environment = Environment(
        loader=PackageLoader("trainer"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {each.__name__: each for each in (percent, words, figure, span, counted)}
    environment.globals["way_back"] = WAY_BACK
    page = environment.get_template(template).render(**content)
    # Names of files whose bytes are not UTF-8 hold what no text may.
    return page.encode(errors="surrogateescape").decode(errors="replace")


def percent(share: float, digits: int = 1) -> str:
    """Write a share of 0 to 1: "97.8 %"."""
    return f"{100 * share:.{digits}f}{_SPACE}%"


def words(name: str) -> str:
    """Write a name with spaces in place of underscores."""
    return name.replace("_", " ")


def figure(value: object) -> str:
    """Write a number with the digits that say something; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def span(seconds: float) -> str:
    """Write a time in the unit that suits it: "0.4 s", "12 min"."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f}{_SPACE}{unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f}{_SPACE}s"
