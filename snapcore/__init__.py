"""A fail-safe transaction for the network configuration of one host.

`begin` saves the configuration, `commit` keeps what was changed since, `rollback` gives the saved one back, and
`boot`, run before networking starts, rolls back what nobody committed. Standard library only, Python 3.9+.
"""

__version__ = "0.1.0"
