"""Which annotations are checked when a function is called."""

from beartype import beartype


def checked(function):
    """A typechecker for jaxtyping: beartype, but for functions inside of functions.

    These are made anew in every call, and to write the checks of one takes longer than most calls.
    """
    if "<locals>" in function.__qualname__:
        return function
    return beartype(function)
