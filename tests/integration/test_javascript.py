"""A JavaScript or TypeScript context behaves as people know it from node's own prompt."""

import shutil
from typing import Any

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason, OutputWritten, ResultDisplayed
from headrace.model.specs import ExecutionRequest, Language
from headrace_guest.kernels.node import Node
from tests.support.running import Outcome, run_python


async def run(sandbox: Sandbox, code: str, **request: Any) -> Outcome:
    """Run JavaScript in its default context."""
    return await run_python(sandbox, code, language=Language.JAVASCRIPT, **request)


async def run_typescript(sandbox: Sandbox, code: str) -> Outcome:
    """Run TypeScript in its default context."""
    return await run_python(sandbox, code, language=Language.TYPESCRIPT)


VALUES = [
    ("1 + 1", "2"),
    ("await Promise.resolve(3)", "3"),
    ("Promise.resolve(4)", "4"),
    ("{a: 1}", "{ a: 1 }"),
    ("await 0; [1, 'x']", "[ 1, 'x' ]"),
    ("const a = 1, {b, ...c} = {b: 2, d: 3}; [a, b, c.d]", "[ 1, 2, 3 ]"),
    ("const [e, , ...f] = await Promise.resolve([1, 2, 3]); let g\n[e, f, g]", None),
    ("let h = 1 // one\n, i = await 2 /* , */, j\n;[h, i, j]", "[ 1, 2, undefined ]"),
    ("for (var k = 0, l = 5; k < 3; k++) await 0; for (var m of [7]); [k, l, m]", "[ 3, 5, 7 ]"),
    ("class A { b() { return 1 } }\n(new A).b()", "1"),
    ("await 0; class A { b() { return 2 } }\nnew A().b()", "2"),
    ("function n() { return o() } function o() { return 1 } n()", "1"),
    ("await 0; p(); function p() { return q } var q = 8; p()", "8"),
    ("const crypto = require('crypto'), fetch = 1; typeof crypto.createHash + fetch", None),
    ("export const r = 1; export default class S {}; [r, typeof S]", "[ 1, 'function' ]"),
    ("import t, {sep as u} from 'node:path'; import * as v from 'path'; [t.sep, u, v.sep]", None),
    ("(await import('node:os')).EOL", "'\\n'"),
    ("'use strict'; let w = 1; w // the end", "1"),
    ("await 1 // the end", "1"),
    ("#!/usr/bin/env node\n5", "5"),
    ("5n ** 2n", "25n"),
    ("new Map([[1, new Set([2])]])", "Map(1) { 1 => Set(1) { 2 } }"),
]


@pytest.mark.parametrize(("code", "text"), VALUES)
async def test_code_as_people_write_it_gives_its_value(
    sandbox: Sandbox, code: str, text: str | None
) -> None:
    outcome = await run(sandbox, code)
    assert (outcome.errors, outcome.stderr) == ([], "")
    (result,) = outcome.results
    assert text in (None, result.text)


@pytest.mark.parametrize(
    "code", ["undefined", "", "// nothing", "let a = 1", "if (1) { 2 }", "5;;"]
)
async def test_what_is_no_value_gives_no_result(sandbox: Sandbox, code: str) -> None:
    outcome = await run(sandbox, code)
    assert (outcome.results, outcome.finished.reason) == ([], FinishReason.OK)


@pytest.mark.parametrize("first", ["", "await 0;"])
@pytest.mark.parametrize("second", ["", "await 0;"])
async def test_names_are_kept_and_may_be_declared_again(
    sandbox: Sandbox, first: str, second: str
) -> None:
    await run(sandbox, f"{first} const a = 1; let b = 1; class C {{}}; function d() {{ return 1 }}")
    code = f"{second} const a = 2; let b; class C {{ x = 2 }}; function d() {{ return 2 }}"
    assert (await run(sandbox, code)).errors == []
    outcome = await run(sandbox, "[a, b, new C().x, d()]")
    assert outcome.results[0].text == "[ 2, undefined, 2, 2 ]"


async def test_an_error_comes_with_name_message_and_the_users_part_of_the_stack(
    sandbox: Sandbox,
) -> None:
    code = "\nfunction f() { throw new RangeError('bad', {cause: new Error('why')}) }\nawait 0\nf()"
    (raised,) = (await run(sandbox, code)).errors
    assert (raised.error.name, raised.error.value) == ("RangeError", "bad")
    assert "at f ([cell 1]:2:22)\n    at [cell 1]:4:" in raised.error.traceback
    assert "[cause]: Error: why" in raised.error.traceback
    assert "headrace" not in raised.error.traceback
    assert ":5:" not in raised.error.traceback


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("throw 'text'", "Error", "'text'"),
        ("throw null", "Error", "null"),
        ("Promise.reject(new TypeError('x'))", "TypeError", "x"),
        ("await missing", "ReferenceError", "missing is not defined"),
        ("require('./missing')", "Error", "Cannot find module './missing'"),
        ("import {missing} from 'fs'", "SyntaxError", "does not provide an export named 'missing'"),
        ("let x = ;", "SyntaxError", "Unexpected token ';'"),
        ("await 1; let x = ;", "SyntaxError", "Unexpected token"),
        ("'abc", "SyntaxError", "Invalid or unexpected token"),
        ("function f() { f() }; f()", "RangeError", "Maximum call stack size exceeded"),
        ("class E extends Error { get message() { throw 1 } }; throw new E()", "Error", "<"),
        ("'use strict'; undeclared = 1", "ReferenceError", "undeclared is not defined"),
    ],
)
async def test_whatever_is_thrown_is_data(
    sandbox: Sandbox, code: str, name: str, value: str
) -> None:
    outcome = await run(sandbox, code)
    (raised,) = outcome.errors
    assert raised.error.name == name
    assert value in raised.error.value
    assert outcome.finished.reason is FinishReason.ERROR
    assert (await run(sandbox, "1")).results[0].text == "1"


async def test_a_syntax_error_shows_the_line_and_the_place(sandbox: Sandbox) -> None:
    for code in ("let a = 1\nlet b = ;", "await 1\nlet b = ;"):
        (raised,) = (await run(sandbox, code)).errors
        head = raised.error.traceback.split("\n")
        assert head[0].endswith("]:2")
        assert head[1:3] == ["let b = ;", "        ^"]


async def test_what_fails_later_is_told_on_stderr_and_ends_nothing(sandbox: Sandbox) -> None:
    code = "setTimeout(() => { throw new Error('in a timer') }, 1); let kept = 1"
    told = (await run(sandbox, code)).stderr
    told += (await run(sandbox, "Promise.reject(new Error('nobody waits')); 0")).stderr
    outcome = await run(sandbox, "await new Promise(done => setTimeout(done, 100)); kept")
    told += outcome.stderr
    assert outcome.results[0].text == "1"
    assert "Uncaught Error: in a timer" in told
    assert "Uncaught Error: nobody waits" in told


async def test_modules_of_the_directory_are_found(sandbox: Sandbox) -> None:
    files = {
        "local.js": "module.exports = {from: 'local.js'}",
        "local.mjs": "export const from = 'local.mjs'; export default 1",
        "data.json": '{"from": "data.json"}',
        "node_modules/pack/package.json": '{"name": "pack", "main": "main.js"}',
        "node_modules/pack/main.js": "module.exports = {from: 'pack'}",
    }
    for name, text in files.items():
        await sandbox.files.write(f"/tmp/project/{name}", text.encode(), create_parents=True)
    code = (
        "import {from} from './local.mjs'; import pack from 'pack';\n"
        "import data from './data.json' with {type: 'json'};\n"
        "const later = await import('./local.mjs');\n"
        "[require('./local.js').from, require('pack').from, from, pack.from, data.from, later.from]"
    )
    outcome = await run(sandbox, code, cwd="/tmp/project")
    assert outcome.errors == []
    expected = ["local.js", "pack", "local.mjs", "pack", "data.json", "local.mjs"]
    assert outcome.results[0].bundle["application/json"] == expected
    assert (await run(sandbox, "require('./local.js')")).errors != []


async def test_plain_values_come_as_json_too(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "({a: [1, null, 'x'], b: {c: true}})")
    bundle = outcome.results[0].bundle
    assert bundle["application/json"] == {"a": [1, None, "x"], "b": {"c": True}}
    for code in ("const o = {}; o.o = o; o", "[5n]", "new Date(0)", "'text'"):
        assert set((await run(sandbox, code)).results[0].bundle) == {"text/plain"}


async def test_values_can_be_displayed_in_rich_forms(sandbox: Sandbox) -> None:
    code = (
        "display.html('<b>1</b>'); display({'image/svg+xml': '<svg/>'}, {raw: true});\n"
        "console.log(2);\n"
        "display([3]); Buffer.from('89504e470d0a1a0a', 'hex')"
    )
    outcome = await run(sandbox, code)
    seen: list[Any] = []
    for event in outcome.events:
        if isinstance(event, OutputWritten):
            seen.append(event.text)
        elif isinstance(event, ResultDisplayed):
            seen.append((event.result.is_main, dict(event.result.bundle)))
    html, svg, printed, plain, png = seen
    assert html == (False, {"text/plain": "[text/html]", "text/html": "<b>1</b>"})
    assert svg == (False, {"image/svg+xml": "<svg/>"})
    assert printed == "2\n"
    assert plain == (False, {"text/plain": "[ 3 ]", "application/json": [3]})
    assert png[0]
    assert png[1]["image/png"] == "iVBORw0KGgo="


async def test_an_object_may_say_itself_how_it_is_shown(sandbox: Sandbox) -> None:
    code = "({[Symbol.for('Jupyter.display')]: async () => ({'text/html': '<i>1</i>'})})"
    assert (await run(sandbox, code)).results[0].bundle["text/html"] == "<i>1</i>"


async def test_output_results_and_children_keep_their_order(sandbox: Sandbox) -> None:
    code = (
        "const {execFileSync} = require('child_process');\n"
        "for (let i = 0; i < 50; i++) {\n"
        "  console.log(`o ${i}`); display(i);\n"
        "  if (i % 10 === 0) execFileSync('echo', [`c ${i}`], {stdio: 'inherit'});\n"
        "}\n"
        "throw new Error('end')"
    )
    seen: list[str] = []
    for event in (await run(sandbox, code)).events:
        if isinstance(event, OutputWritten):
            seen += event.text.splitlines()
        elif isinstance(event, ResultDisplayed):
            seen.append(f"d {event.result.text}")
    expected = [
        line
        for i in range(50)
        for line in (f"o {i}", f"d {i}", *([f"c {i}"] if i % 10 == 0 else []))
    ]
    assert seen == expected


async def test_what_was_printed_before_an_exit_arrives(sandbox: Sandbox) -> None:
    code = "process.stdout.write('x'.repeat(1_000_000)); process.exit(4)"
    outcome = await run(sandbox, code)
    assert (len(outcome.stdout), outcome.finished.exit_code) == (1_000_000, 4)


async def test_output_pipes_stay_blocking_for_children(sandbox: Sandbox) -> None:
    code = (
        "console.log('a'); require('child_process').execFileSync('python3', ['-c', "
        "'import os; print(os.get_blocking(1), os.get_blocking(2))'], {stdio: 'inherit'}); void 0"
    )
    assert (await run(sandbox, code)).stdout == "a\nTrue True\n"


LOOPS = {
    "after a timer": "await new Promise(r => setTimeout(r, 50)); while (true) {}",
    "at once after an await": "await 0; while (true) {}",
    "in a callback": "setTimeout(() => { while (true) {} }, 50); await new Promise(() => {})",
    "made of awaits": "for (;;) await new Promise(r => setTimeout(r, 1))",
    "made of microtasks": "for (;;) await 0",
    "while a value is shown": "({[Symbol.for('Jupyter.display')]() { while (true) {} }})",
    "while an error is told": "throw new (class extends Error { get message() { for (;;); } })()",
    "with a listener of its own": "process.on('SIGINT', () => {}); await new Promise(() => {})",
    "in a child": "require('child_process').execSync('sleep 60')",
}


@pytest.mark.parametrize("kind", LOOPS)
async def test_every_kind_of_endless_code_can_be_interrupted(sandbox: Sandbox, kind: str) -> None:
    await run(sandbox, "let kept = 1")
    request = ExecutionRequest(LOOPS[kind], language=Language.JAVASCRIPT)
    with anyio.fail_after(20):
        execution = await sandbox.execute(request)
        await anyio.sleep(0.4)
        await execution.interrupt()
        finished = await execution.wait()
    assert not finished.state_lost
    assert finished.reason in (FinishReason.INTERRUPTED, FinishReason.ERROR)
    outcome = await run(sandbox, "await new Promise(r => setTimeout(r, 20)); kept")
    assert outcome.results[0].text == "1"


TYPESCRIPT = [
    ("const a: number = 1; type T = {b?: string}; interface I extends T {}; (a as number)!", "1"),
    ("enum Color { Red, Green = 'g' }\n[Color.Red, Color.Green]", "[ 0, 'g' ]"),
    ("namespace N { export const a = 1 }\nN.a", "1"),
    ("class P { constructor(private x: number, readonly y = 2) {} }\nnew P(1)", "P { x: 1, y: 2 }"),
    ("abstract class A<T> { abstract m(): T }\ndeclare const d: string\ntypeof A", "'function'"),
    (
        "import { sep, type ParsedPath } from 'node:path'; import type { Stats } from 'fs'; sep",
        "'/'",
    ),
    ("import { sep, ParsedPath } from 'node:path'; sep", "'/'"),
    ("const v: string = await Promise.resolve<string>('v'); v satisfies string", "'v'"),
    ("function f<T,>(a: T): T\nfunction f(a: any) { return a }\nf<number>(3)", "3"),
]


@pytest.mark.parametrize(("code", "text"), TYPESCRIPT)
async def test_typescript_is_more_than_blanked_types(
    sandbox: Sandbox, code: str, text: str
) -> None:
    outcome = await run_typescript(sandbox, code)
    assert outcome.errors == []
    assert [result.text for result in outcome.results] == [text]


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("let a = 1;\nlet b: = 3", "]:2\nlet b: = 3\n       ^"),
        ("interface I { a: }", "]:1\ninterface I { a: }\n                 ^"),
        ("enum E { A = }", "]:1\nenum E { A = }\n             ^"),
    ],
)
async def test_a_syntax_error_of_types_has_its_place(
    sandbox: Sandbox, code: str, place: str
) -> None:
    (raised,) = (await run_typescript(sandbox, code)).errors
    assert raised.error.name == "SyntaxError"
    assert place in raised.error.traceback


async def test_errors_of_compiled_typescript_name_the_lines_that_were_written(
    sandbox: Sandbox,
) -> None:
    code = "enum E { A,\n  B }\n\nfunction f(): never {\n  throw new Error('x')\n}\nf()"
    (raised,) = (await run_typescript(sandbox, code)).errors
    assert "at f ([cell 1]:5:9)\n    at [cell 1]:7:1" in raised.error.traceback


async def test_no_interrupt_is_lost_that_comes_with_the_first_output(sandbox: Sandbox) -> None:
    code = "var kept = (globalThis.kept ?? 0) + 1; console.log('go'); await new Promise(() => {})"
    for _ in range(30):
        execution = await sandbox.execute(ExecutionRequest(code, language=Language.JAVASCRIPT))
        async for event in execution.events():
            if isinstance(event, OutputWritten):
                break
        await execution.interrupt()
        finished = await execution.wait()
        assert (finished.reason, finished.state_lost) == (FinishReason.INTERRUPTED, False)
    assert (await run(sandbox, "kept")).results[0].text == "30"


@pytest.mark.parametrize(("is_typescript", "sources"), [(False, 4), (True, 5)])
def test_what_was_compiled_ahead_is_taken_by_the_next_node(
    is_typescript: bool, sources: int
) -> None:
    node = shutil.which("node", path="/usr/bin")
    assert node is not None
    interpreter = Node(node, is_typescript=is_typescript)
    assert len(interpreter.compile_ahead()) == sources
    # Now each source comes with its compiled form, and nothing is left to be compiled.
    assert interpreter.compile_ahead() == []
