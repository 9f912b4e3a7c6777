"""Host names as the name system knows them."""

_DOTS = ".\u3002\uff0e\uff61"
_JOINERS = "\u200c\u200d"


def ascii_name(host: str) -> str:
    """`host` in ASCII and lower case, without a trailing dot.

    Other characters are read as browsers do: UTS #46, non-transitional, so that "ß" is a letter of
    its own and emoji pass. Digits and dots of other widths become ASCII ones; what comes of it has
    to be looked at as if it had been sent so.

    Raises:
        ValueError: It is no name.
    """
    name = host[:-1] if host[-1:] in _DOTS else host
    if name.isascii():
        return name.lower()
    # Imported here since most names are ASCII, and its tables take 30 ms.
    import idna

    labels = idna.uts46_remap(name, std3_rules=False).split(".")
    for label in labels:
        idna.check_initial_combiner(label)
        idna.check_bidi(label)
        for position, character in enumerate(label):
            if character in _JOINERS and not idna.valid_contextj(label, position):
                raise ValueError("a joiner that joins nothing")
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels
    )
