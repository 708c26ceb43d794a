"""A sandbox, some code, what it printed and what it gave.

Without HEADRACE_URL a private server is started for this program and ends with it.
"""

from headrace import Sandbox

with Sandbox.create() as sandbox:
    outcome = sandbox.run_code(
        """
import pandas
mill = pandas.DataFrame({"grain": ["rye", "wheat"], "kg": [120, 300]})
print("ground", mill["kg"].sum(), "kg")
mill
"""
    )
    print(outcome.stdout, end="")
    print(outcome.text)

    outcome = sandbox.run_code("mill['price']")
    if outcome.error:
        print("the code failed:", outcome.error.name, outcome.error.value)
