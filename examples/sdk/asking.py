"""Code that asks for input, answered by this program."""

from headrace import InputRequested, Sandbox

ANSWERS = {"Who? ": "Ann", "How many sacks? ": "3"}


def answer(event: InputRequested) -> str | None:
    """Give the line for a question, or None for the end of the input."""
    return ANSWERS.get(event.prompt)


with Sandbox.create() as sandbox:
    outcome = sandbox.run_code(
        "print(input('Who? '), 'gets', int(input('How many sacks? ')), 'sacks')", on_input=answer
    )
    print(outcome.stdout, end="")
