"""Commands and code that go on while this program does something else."""

from headrace import FinishReason, OutputWritten, Sandbox

with Sandbox.create() as sandbox:
    # A command with a handle: write to it, wait for it.
    sort = sandbox.commands.run("sort", background=True, stdin=True)
    sort.write_stdin("wheat\nrye\nbarley\n")
    sort.close_stdin()
    print(sort.wait().stdout, end="")

    # A command that never ends: read until it is ready, then end it.
    ticker = sandbox.commands.run("while true; do echo tick; sleep 0.1; done", background=True)
    for event in ticker:
        if isinstance(event, OutputWritten):
            print(event.text.splitlines()[0])
            break
    ticker.kill()

    # Code in the background is found again by its id, also by another program.
    started = sandbox.start_code("import time; time.sleep(60)")
    again = sandbox.execution(started.id)
    again.interrupt()
    if again.wait().reason is FinishReason.INTERRUPTED:
        print("interrupted")
