"""What only the async face can do."""

import asyncio

from e2b_code_interpreter import AsyncSandbox
from face_async import until


async def test_callbacks_may_be_coroutines(sandbox: AsyncSandbox) -> None:
    seen: list[str] = []

    async def see(message: object) -> None:
        await asyncio.sleep(0)
        seen.append(str(message))

    await sandbox.run_code("print('code')", on_stdout=see)
    await sandbox.commands.run("echo command", on_stdout=see)

    assert seen == ["code\n", "command\n"]


# covers: commands.run
async def test_a_background_command_calls_back(sandbox: AsyncSandbox) -> None:
    seen: list[str] = []

    command = await sandbox.commands.run(
        "echo one; read line; echo $line", background=True, stdin=True, on_stdout=seen.append
    )
    await until(lambda: seen == ["one\n"])
    assert command.stdout == "one\n"
    assert command.exit_code is None
    await command.send_stdin("two\n")
    await command.wait()

    assert seen == ["one\n", "two\n"]
    assert command.exit_code == 0


# covers: commands.connect
async def test_one_who_connects_is_called_back(sandbox: AsyncSandbox) -> None:
    seen: list[str] = []
    command = await sandbox.commands.run("read line; echo $line >&2", background=True, stdin=True)

    other = await sandbox.commands.connect(command.pid, on_stderr=seen.append)
    await command.send_stdin("to both\n")
    result = await other.wait()

    assert seen == ["to both\n"]
    assert result.stderr == "to both\n"


# covers: commands.stream_input
async def test_input_is_streamed(sandbox: AsyncSandbox) -> None:
    command = await sandbox.commands.run("cat", background=True, stdin=True)

    async with sandbox.commands.stream_input(command.pid) as stream:
        for number in range(50):
            await stream.send(f"{number}\n")
        await until(lambda: "49\n" in command.stdout)
    await command.close_stdin()
    result = await command.wait()

    assert result.stdout == "".join(f"{number}\n" for number in range(50))


# covers: pty.stream_input
async def test_input_of_a_terminal_is_streamed(sandbox: AsyncSandbox) -> None:
    from face_async import open_terminal

    terminal = await open_terminal(sandbox)

    async with sandbox.pty.stream_input(terminal.pid) as stream:
        await stream.send(b'echo "<$((6*7))>"\n')
        await terminal.until(b"<42>")


async def test_an_execution_that_is_cancelled_is_interrupted(sandbox: AsyncSandbox) -> None:
    seen: list[object] = []
    running = asyncio.ensure_future(
        sandbox.run_code("import time\nprint(1)\ntime.sleep(300)", on_stdout=seen.append)
    )
    await until(lambda: seen)

    running.cancel()
    await asyncio.wait([running])
    async with asyncio.timeout(10):
        execution = await sandbox.run_code("'next'")

    assert running.cancelled()
    assert execution.text == "next"


# covers: watch.stop
async def test_the_end_of_a_watch_is_told(sandbox: AsyncSandbox) -> None:
    ends: list[Exception | None] = []
    await sandbox.files.make_dir("d")

    handle = await sandbox.files.watch_dir("d", on_event=lambda _: None, on_exit=ends.append)
    await asyncio.sleep(0.1)  # a task that is ended before it began calls nobody
    await handle.stop()

    assert ends == [None]


async def test_a_watch_ends_with_its_sandbox() -> None:
    ends: list[Exception | None] = []
    sandbox = await AsyncSandbox.create()

    await sandbox.files.watch_dir("/tmp", on_event=lambda _: None, on_exit=ends.append)
    await sandbox.kill()
    await until(lambda: ends)

    assert isinstance(ends[0], Exception)


async def test_an_async_generator_is_uploaded(sandbox: AsyncSandbox) -> None:
    async def chunks():
        for number in range(100):
            yield b"%d\n" % number

    await sandbox.files.write("streamed", chunks())

    assert await sandbox.files.read("streamed") == "".join(f"{n}\n" for n in range(100))
