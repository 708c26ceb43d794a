// Running Python code: state, output, errors, the end before its time.

import assert from 'node:assert/strict'
import test from 'node:test'
import { NotFoundError, Sandbox, SandboxError, TimeoutError } from '@e2b/code-interpreter'
import { sandboxed, until } from './face.mjs'

// covers: Sandbox.run_code
test('the last expression is the result', sandboxed(async (sandbox) => {
  const execution = await sandbox.runCode('x = 1; x += 1; x')

  assert.equal(execution.text, '2')
  assert.equal(execution.error, undefined)
  assert.equal(execution.executionCount, 1)
  assert.deepEqual(execution.results.map((result) => result.isMainResult), [true])
}))

test('every callback is called and all is in the result', sandboxed(async (sandbox) => {
  const seen = []
  const code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')\n1/0"

  const execution = await sandbox.runCode(code, {
    onStdout: (data) => seen.push(`stdout ${data.line}`),
    onStderr: (data) => seen.push(`stderr ${data.line}`),
    onResult: (result) => seen.push(`result ${result.text}`),
    onError: (error) => seen.push(`error ${error.name}`),
  })

  assert.deepEqual(seen, ['stdout out\n', 'stderr err\n', 'result shown', 'error ZeroDivisionError'])
  assert.deepEqual(execution.logs, { stdout: ['out\n'], stderr: ['err\n'] })
  assert.equal(execution.results.length, 1)
}))

test('exceptions are told', sandboxed(async (sandbox) => {
  for (const [code, name, value] of [
    ["raise ValueError('a', 2)", 'ValueError', "('a', 2)"],
    ['x = = 1', 'SyntaxError', 'invalid syntax'],
    ['if True:\nx = 1', 'IndentationError', 'expected an indented block'],
    ['import sys\nsys.exit(3)', 'SystemExit', '3'],
    ['input()', 'StdinNotImplementedError', ''],
  ]) {
    const { error } = await sandbox.runCode(code)
    assert.equal(error.name, name)
    assert.ok(error.value.includes(value), error.value)
    assert.ok(error.traceback.includes(name))
    assert.ok(!error.traceback.includes('\x1b'))
  }
}))

// covers: Sandbox.run_code
test('variables are there for one execution', sandboxed(async (sandbox) => {
  const value = 'it\'s "quoted"\n\\ and {braces} ü'
  const code = "    import os\n    print(os.environ.get('OWN'), end='')"

  const during = await sandbox.runCode(code, { envs: { OWN: value } })
  const after = await sandbox.runCode(code)

  assert.equal(during.logs.stdout.join(''), value)
  assert.equal(after.logs.stdout.join(''), 'None')
}))

test('every character survives', sandboxed(async (sandbox) => {
  for (const text of ['ü€', '\u{1f600}\u{1f3fd}', 'a\u2028b\u2029c\x85d', '\r\n\t\x00\x1b[31m']) {
    const code = `import json\ntext = json.loads(${JSON.stringify(JSON.stringify(text))})`
    await sandbox.runCode(code)
    const execution = await sandbox.runCode("print(text, end='')\ntext")
    assert.equal(execution.logs.stdout.join(''), text)
  }
  const many = await sandbox.runCode("print('\u{1f600}ü€' * 200_000)")
  assert.equal(many.logs.stdout.join(''), `${'\u{1f600}ü€'.repeat(200_000)}\n`)
}))

test('many lines arrive whole and in order', sandboxed(async (sandbox) => {
  const lines = []

  await sandbox.runCode('for i in range(100_000): print(i)', {
    onStdout: (data) => lines.push(data.line),
  })

  assert.equal(lines.join(''), Array.from({ length: 100_000 }, (_, i) => `${i}\n`).join(''))
}))

// covers: Sandbox.run_code
test('code that takes too long is interrupted', sandboxed(async (sandbox) => {
  await sandbox.runCode("x = 'kept'")

  await assert.rejects(
    sandbox.runCode('import time\ntime.sleep(300)', { timeoutMs: 1000 }),
    TimeoutError,
  )
  const begun = Date.now()
  const execution = await sandbox.runCode('x')

  assert.equal(execution.text, 'kept')
  assert.ok(Date.now() - begun < 5000)
}))

test('code that kills its interpreter is told and the next one works', sandboxed(
  async (sandbox) => {
    const killed = await sandbox.runCode(
      'import os, signal\nos.kill(os.getpid(), signal.SIGKILL)',
    )
    const after = await sandbox.runCode('1 + 1')

    assert.ok(killed.error)
    assert.equal(after.text, '2')
  },
))

test('a sandbox that is killed ends its executions with a timeout', async () => {
  const sandbox = await Sandbox.create()
  const seen = []
  const running = sandbox.runCode("import time\nprint('begun')\ntime.sleep(300)", {
    onStdout: (data) => seen.push(data.line),
  })
  running.catch(() => {})
  await until(() => seen.length > 0)

  await sandbox.kill()

  await assert.rejects(running, (error) => {
    assert.ok(error instanceof TimeoutError, `${error}`)
    assert.match(error.message, /killed/)
    return true
  })
  assert.equal(await sandbox.isRunning(), false)
})

test('silence does not end a stream', sandboxed(async (sandbox) => {
  const execution = await sandbox.runCode("import time\ntime.sleep(7)\n'awake'")

  assert.equal(execution.text, 'awake')
}))

// covers: Sandbox.create_code_context, Sandbox.run_code
test('contexts do not share their state', sandboxed(async (sandbox) => {
  const context = await sandbox.createCodeContext({ cwd: '/tmp', language: 'python' })
  await sandbox.runCode("x = 'default'")
  await sandbox.runCode("x = 'own'", { context })

  const where = await sandbox.runCode('import os; os.getcwd()', { context })

  assert.equal((await sandbox.runCode('x')).text, 'default')
  assert.equal((await sandbox.runCode('x', { context })).text, 'own')
  assert.equal(where.text, '/tmp')
  assert.deepEqual([context.language, context.cwd], ['python', '/tmp'])
}))

// covers: Sandbox.list_code_contexts, Sandbox.remove_code_context
test('contexts are listed and removed', sandboxed(async (sandbox) => {
  const ids = async () => (await sandbox.listCodeContexts()).map((one) => one.id)
  const first = await sandbox.listCodeContexts()
  const before = first.map((one) => one.id)

  const context = await sandbox.createCodeContext({ language: 'js' })
  const during = await ids()
  await sandbox.removeCodeContext(context)

  const languages = first.map((one) => one.language)
  assert.ok(languages.includes('python') && languages.includes('javascript'))
  assert.equal(context.language, 'javascript')
  assert.deepEqual(during, [...before, context.id])
  assert.deepEqual(await ids(), before)
  await assert.rejects(sandbox.runCode('1', { context }), NotFoundError)
  await assert.rejects(sandbox.removeCodeContext(context.id), NotFoundError)
}))

// covers: Sandbox.restart_code_context
test('a restart forgets everything but the id', sandboxed(async (sandbox) => {
  const context = await sandbox.createCodeContext()
  await sandbox.runCode('x = 1', { context })

  await sandbox.restartCodeContext(context)
  const gone = await sandbox.runCode('x', { context })
  await sandbox.restartCodeContext(context.id)

  assert.equal(gone.error.name, 'NameError')
  await assert.rejects(sandbox.restartCodeContext('no-such-context'), NotFoundError)
}))

test('an unknown language is refused', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.createCodeContext({ language: 'cobol' }), SandboxError)
  await assert.rejects(sandbox.runCode('1', { language: 'cobol' }), SandboxError)
}))
