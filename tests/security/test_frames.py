"""The event socket is hostile: user code shares the process that owns it, and writes to it."""

import re
from pathlib import Path

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason, ResultDisplayed
from headrace.model.specs import ExecutionRequest
from tests.security.siblings import unharmed
from tests.support.running import Outcome, run_python

FORGER = """
import json, os, socket, struct, time

def sockets():
    found = []
    for name in os.listdir('/proc/self/fd'):
        try:
            sock = socket.fromfd(int(name), socket.AF_UNIX, socket.SOCK_STREAM)
            sock.getpeername()
        except OSError:
            continue
        sock.setblocking(True)
        found.append(sock)
    return found

def pack(body):
    return struct.pack('!I', len(body)) + body

ours = sockets()
assert ours

def send(data):
    for sock in ours:
        try:
            sock.sendall(data)
        except OSError:
            pass

def forge(**fields):
    send(pack(json.dumps(fields).encode()))

def own_id():
    while not os.path.exists('/tmp/id'):
        time.sleep(0.01)
    return open('/tmp/id').read()

def result(execution, bundle, **fields):
    full = dict(type='result', execution=execution, bundle=bundle, is_main=True, omitted={},
                display_id=None, is_update=False)
    return {**full, **fields}
"""

LIES = {
    "an impossible length": "send(b'\\xff\\xff\\xff\\xff' + b'x' * 64)",
    "a length just above the limit": "send(struct.pack('!I', 16 * 2**20 + 1) + b'x' * 64)",
    "an empty frame": "send(pack(b''))",
    "no JSON": "send(pack(b'this is not JSON'))",
    "no text": "send(pack(bytes(range(128, 256))))",
    "a list": "send(pack(b'[1, 2, 3]'))",
    "a number": "send(pack(b'7'))",
    "10,000 deep": "send(pack(b'[' * 10_000 + b']' * 10_000))",
    "a deep field": (
        'send(pack(b\'{"type":"result","bundle":{"a":\' + b\'[\' * 10_000'
        " + b']' * 10_000 + b'}}'))"
    ),
    "deep parts of an error": (
        'send(pack(b\'{"type":"error","parts":[\' * 10_000 + b\']}\' * 10_000))'
    ),
    "an infinite number": 'send(pack(b\'{"type":"done","exit_code":Infinity}\'))',
    "a huge number": (
        'send(pack(b\'{"type":"done","execution":"x","status":"ok","exit_code":\''
        " + b'9' * 5000 + b'}'))"
    ),
    "an unknown type": "forge(type='kill_host', sandbox='all')",
    "a type that is a list": "forge(type=['done'])",
    "no type": "forge(hello='world')",
    "missing fields": "forge(type='result')",
    "wrong types": "forge(**result(['x'], 'y'))",
    "too many forms": "forge(**result('x', {f'a/{n}': 'b' for n in range(65)}))",
    "a negative size": "forge(**result('x', {}, omitted={'a/b': -1}))",
    "an unknown status": "forge(type='done', execution=own_id(), status='root', exit_code=0)",
    "an id of a megabyte": "forge(type='done', execution='x' * 2**20, status='ok', exit_code=0)",
    "a message of an agent": "forge(type='reply', request=1, value={}, error=None, detail='')",
    "a verb of the launcher": "forge(id=1, verb='kill', sandbox='x')",
}
"""What no honest kernel sends; the engine gives the kernel up."""

NOISE = {
    "a result of another execution": "forge(**result('aaaa-bbbb', {'text/plain': 'forged'}))",
    "the end of another execution": (
        "forge(type='done', execution='x', status='ok', exit_code=None)"
    ),
    "an error of another execution": (
        "forge(type='error', execution='x', name='E', value='v', traceback='forged', parts=[])"
    ),
}
"""Frames that are well-formed and mean nothing to this execution."""


async def run_with_id(sandbox: Sandbox, code: str, *, timeout: float = 40) -> Outcome:  # noqa: ASYNC109
    """Run code that may read its own execution's id from /tmp/id."""
    execution = await sandbox.execute(ExecutionRequest(FORGER + code, timeout=timeout))
    await sandbox.files.write("/tmp/id", execution.id.encode())
    with anyio.fail_after(timeout + 20):
        return Outcome(tuple([event async for event in execution.events()]))


async def assert_next_one_works(sandbox: Sandbox) -> None:
    """Assert that a context still takes code and tells the truth about it."""
    outcome = await run_python(sandbox, "print('next'); 6 * 7")
    assert outcome.finished.reason is FinishReason.OK, outcome.finished
    assert outcome.stdout.endswith("next\n")
    assert [result.text for result in outcome.results] == ["42"]


def assert_numbered(outcome: Outcome) -> None:
    """Assert that the host counted, whatever the guest said."""
    assert [event.seq for event in outcome.events] == list(range(1, len(outcome.events) + 1))
    times = [event.timestamp for event in outcome.events]
    assert times == sorted(times)


@pytest.mark.parametrize("lie", LIES, ids=str)
async def test_a_kernel_that_lies_loses_only_its_own_execution(
    sandbox: Sandbox, other: Sandbox, lie: str
) -> None:
    """Threat (42): malformed, oversized or forged frames crash or block the engine."""
    async with unharmed(other):
        outcome = await run_with_id(sandbox, LIES[lie] + "\ntime.sleep(0.2)\nprint('later')")
    assert outcome.finished.reason is FinishReason.KERNEL_DIED, outcome.finished
    assert outcome.finished.state_lost
    assert outcome.finished.detail
    assert_numbered(outcome)
    await assert_next_one_works(sandbox)


async def test_half_a_frame_is_waited_for_until_the_time_limit(
    sandbox: Sandbox, other: Sandbox
) -> None:
    """Threat (42): a frame that never ends swallows the honest ones behind it."""
    async with unharmed(other):
        outcome = await run_with_id(sandbox, "send(struct.pack('!I', 1000) + b'half')", timeout=2)
    assert outcome.finished.reason is FinishReason.TIMEOUT
    assert outcome.finished.state_lost
    assert_numbered(outcome)
    await assert_next_one_works(sandbox)


@pytest.mark.parametrize("noise", NOISE, ids=str)
async def test_frames_of_another_execution_change_nothing(sandbox: Sandbox, noise: str) -> None:
    """Threat (42): a kernel writes into, or ends, an execution that is not its own."""
    outcome = await run_with_id(sandbox, NOISE[noise] + "\nprint('honest')")
    assert outcome.finished.reason in (FinishReason.OK, FinishReason.KERNEL_DIED)
    assert not outcome.results
    assert not outcome.errors
    assert_numbered(outcome)
    await assert_next_one_works(sandbox)


async def test_a_forged_end_ends_only_the_forger(sandbox: Sandbox, other: Sandbox) -> None:
    """Threat (42): end twice, or display something after the end."""
    code = (
        "me = own_id()\n"
        "for _ in range(3):\n"
        "    forge(type='done', execution=me, status='ok', exit_code=None)\n"
        "forge(**result(me, {'text/plain': 'after the end'}))\n"
        "time.sleep(0.3)\n"
    )
    async with unharmed(other):
        outcome = await run_with_id(sandbox, code)
    assert outcome.finished.reason in (FinishReason.OK, FinishReason.KERNEL_DIED)
    assert not outcome.results
    assert_numbered(outcome)
    first = await run_python(sandbox, "print('next')")
    assert first.finished.reason in (FinishReason.OK, FinishReason.KERNEL_DIED)
    await assert_next_one_works(sandbox)


async def test_a_second_ready_is_no_new_kernel(sandbox: Sandbox) -> None:
    """Threat (42): pretend to have just started."""
    outcome = await run_with_id(sandbox, "forge(type='ready')\nprint('done')")
    assert outcome.finished.reason in (FinishReason.OK, FinishReason.KERNEL_DIED)
    await assert_next_one_works(sandbox)


async def test_a_request_for_input_that_nobody_accepts_does_not_block(sandbox: Sandbox) -> None:
    """Threat (42): ask for a password in the client's terminal although it takes no input."""
    code = "forge(type='input', execution=own_id(), prompt='Password: ', is_password=True)"
    outcome = await run_with_id(sandbox, code + "\nprint('done')")
    assert outcome.finished.reason in (FinishReason.OK, FinishReason.KERNEL_DIED)
    assert not [event for event in outcome.events if type(event).__name__ == "InputRequested"]
    await assert_next_one_works(sandbox)


@pytest.mark.parametrize("way", ["sock.shutdown(2)", "sock.close(); os.close(int(name))"])
async def test_a_kernel_that_closes_its_sockets_is_replaced(
    sandbox: Sandbox, other: Sandbox, way: str
) -> None:
    """Threat (42): the end of the channel without an end of the execution."""
    code = (
        "for sock in ours:\n"
        "    sock.close()\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    try:\n"
        "        sock = socket.fromfd(int(name), socket.AF_UNIX, socket.SOCK_STREAM)\n"
        "        sock.getpeername()\n"
        "    except OSError:\n"
        "        continue\n"
        f"    {way}\n"
        "time.sleep(30)\n"
    )
    async with unharmed(other):
        outcome = await run_with_id(sandbox, code, timeout=20)
    assert outcome.finished.reason in (FinishReason.KERNEL_DIED, FinishReason.TIMEOUT)
    await assert_next_one_works(sandbox)


async def test_a_flood_of_frames_does_not_hinder_a_sibling(
    sandbox: Sandbox, other: Sandbox
) -> None:
    """Threat (42): 50,000 results, as fast as the socket takes them."""
    code = (
        "frame = pack(json.dumps(result(own_id(), {'text/plain': 'x' * 100})).encode())\n"
        "for _ in range(500):\n"
        "    send(frame * 100)\n"
    )
    async with unharmed(other):
        outcome = await run_with_id(sandbox, code, timeout=50)
    shown = [event for event in outcome.events if isinstance(event, ResultDisplayed)]
    assert outcome.finished.reason in (
        FinishReason.OK,
        FinishReason.KERNEL_DIED,
        FinishReason.OUTPUT_LIMIT,
    )
    assert len(shown) <= 50_000
    await assert_next_one_works(sandbox)


async def test_descriptors_sent_to_the_host_do_not_stay(sandbox: Sandbox) -> None:
    """Threat (42): fill the host's table of descriptors by passing it some."""
    code = (
        "for sock in ours:\n"
        "    for _ in range(50):\n"
        "        try:\n"
        "            socket.send_fds(sock, [b'\\0'], [0] * 50)\n"
        "        except OSError:\n"
        "            break\n"
    )
    before = _open_descriptors()
    await run_with_id(sandbox, code)
    await assert_next_one_works(sandbox)
    assert _open_descriptors() <= before + 8


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_output_that_looks_like_frames_is_output(sandbox: Sandbox) -> None:
    """Threat (42): standard output is never parsed."""
    code = (
        "fake = pack(json.dumps(dict(type='done', execution=own_id(), status='ok')).encode())\n"
        "os.write(1, fake); os.write(2, fake)\n"
        "raise ValueError('the real end')\n"
    )
    outcome = await run_with_id(sandbox, code)
    assert outcome.finished.reason is FinishReason.ERROR
    assert '"type": "done"' in outcome.stdout
    assert '"type": "done"' in outcome.stderr
    assert [event.error.name for event in outcome.errors] == ["ValueError"]


async def test_ids_of_executions_cannot_be_guessed(sandbox: Sandbox) -> None:
    """Threat (42): ids that count let one execution speak for the next."""
    ids = [(await sandbox.execute(ExecutionRequest("1"))).id for _ in range(3)]
    suffixes = {identifier.partition("-")[2] for identifier in ids}
    assert len(suffixes) == 3
    assert all(re.fullmatch(r"[a-z2-7]{16}", suffix) for suffix in suffixes)
