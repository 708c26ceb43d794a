"""Contexts: interpreter states that know nothing of one another."""

from headrace import Sandbox

with Sandbox.create() as sandbox:
    mill = sandbox.contexts.create(cwd="/workspace")
    sandbox.run_code("grain = 'rye'", context=mill)

    print("in the context:", sandbox.run_code("grain", context=mill).text)
    outside = sandbox.run_code("grain")
    print("outside:", outside.error.value if outside.error else outside.text)

    sandbox.contexts.restart(mill)
    fresh = sandbox.run_code("grain", context=mill)
    print("after a restart:", fresh.error.value if fresh.error else fresh.text)
