"""Events while they happen: by callbacks, and by a loop."""

from headrace import CodeRaised, ExecutionFinished, OutputWritten, ResultDisplayed, Sandbox

CODE = """
import time
for sack in range(3):
    time.sleep(0.2)
    print("sack", sack + 1)
"""


def show(event: OutputWritten) -> None:
    """Show output at once."""
    print(f"[{event.stream}] {event.text}", end="", flush=True)


with Sandbox.create() as sandbox:
    sandbox.run_code(CODE, on_stdout=show, on_stderr=show)

    for event in sandbox.run_code_stream(CODE + "\n3 * 50"):
        match event:
            case OutputWritten():
                show(event)
            case ResultDisplayed():
                print("result:", event.result.text)
            case CodeRaised():
                print(event.error.traceback)
            case ExecutionFinished():
                print("ended:", event.reason)
            case _:
                pass
