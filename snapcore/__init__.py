"""A fail-safe transaction for the network configuration of one host.

`begin` saves the configuration, `commit` keeps what was changed since, `rollback` gives the saved one back, and
`boot`, run before networking starts, rolls back what nobody committed. Standard library only, Python 3.9+.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snapcore.api import Transaction

__all__ = ["Transaction", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`snapcore.Transaction`, imported when it is asked for: the command starts without it."""
    if name == "Transaction":
        from snapcore.api import Transaction

        return Transaction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
