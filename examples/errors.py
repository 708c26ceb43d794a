"""What goes wrong in the program is told with its traceback and an exit status of its own.

Run it with: scripts/run examples/errors.py; echo "exit status $?"
"""

stock = {"flour": 12, "bran": 3}


def take(kind: str, amount: int) -> None:
    """Take flour or bran out of the stock."""
    if amount > stock[kind]:
        raise ValueError(f"only {stock[kind]} sacks of {kind} are left, not {amount}")
    stock[kind] -= amount
    print(f"took {amount} of {kind}, {stock[kind]} left")


take("flour", 5)

try:
    take("bran", 4)
except ValueError as error:
    print(f"caught: {error}")

take("rye", 1)
print("this line is never reached")
