// What every user does first: run code, run commands, several at once.

import assert from 'node:assert/strict'
import test from 'node:test'
import { CommandExitError, Sandbox } from '@e2b/code-interpreter'
import { sandboxed } from './face.mjs'

test('an error leaves the state as it was', sandboxed(async (sandbox) => {
  await sandbox.runCode('x = 20')

  const failed = await sandbox.runCode('1/0')
  const after = await sandbox.runCode('x + 1')

  assert.equal(failed.error.name, 'ZeroDivisionError')
  assert.equal(failed.error.value, 'division by zero')
  assert.match(failed.error.traceback, /1\/0/)
  assert.equal(after.text, '21')
}))

// covers: commands.run
test('a command that fails raises with its exit code', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.commands.run('echo so far; echo wrong >&2; exit 3'), (error) => {
    assert.ok(error instanceof CommandExitError)
    assert.equal(error.exitCode, 3)
    assert.equal(error.stdout, 'so far\n')
    assert.equal(error.stderr, 'wrong\n')
    assert.equal(error.message, 'exit status 3')
    return true
  })
}))

// covers: handle.wait
test('a background command returns at once', sandboxed(async (sandbox) => {
  const begun = Date.now()

  const command = await sandbox.commands.run('sleep 2; echo done', { background: true })
  const returned = Date.now()
  const result = await command.wait()

  assert.ok(returned - begun < 1500)
  assert.ok(command.pid > 0)
  assert.equal(result.stdout, 'done\n')
  assert.ok(Date.now() - begun > 1500)
}))

test('five commands stream side by side', sandboxed(async (sandbox) => {
  const lines = []
  const run = (name) =>
    sandbox.commands.run(`for i in 1 2 3; do echo ${name}$i; sleep 0.5; done`, {
      onStdout: (data) => {
        lines.push(...data.trim().split('\n'))
      },
    })

  await Promise.all([...'abcde'].map(run))

  assert.deepEqual([...lines].sort(), [...'abcde'].flatMap((n) => [1, 2, 3].map((i) => `${n}${i}`)))
  // All have begun before any has ended.
  const firsts = [...'abcde'].map((name) => lines.indexOf(`${name}1`))
  const lasts = [...'abcde'].map((name) => lines.indexOf(`${name}3`))
  assert.ok(Math.max(...firsts) < Math.min(...lasts))
}))

test('five sandboxes stream side by side', async () => {
  const lines = []
  const run = async (number) => {
    const sandbox = await Sandbox.create()
    try {
      const code = `import time\nfor i in range(3):\n    print(${number}, i)\n    time.sleep(0.5)`
      await sandbox.runCode(code, { onStdout: (data) => lines.push(data.line.trim()) })
      return sandbox.sandboxId
    } finally {
      await sandbox.kill()
    }
  }

  const ids = await Promise.all([0, 1, 2, 3, 4].map(run))

  assert.equal(new Set(ids).size, 5)
  const firsts = [0, 1, 2, 3, 4].map((number) => lines.indexOf(`${number} 0`))
  const lasts = [0, 1, 2, 3, 4].map((number) => lines.indexOf(`${number} 2`))
  assert.ok(Math.min(...firsts) >= 0)
  assert.ok(Math.max(...firsts) < Math.min(...lasts))
})

test('output arrives soon after it was written', sandboxed(async (sandbox) => {
  const delays = []
  const code = 'import time\nfor _ in range(20):\n    print(time.time())\n    time.sleep(0.05)'

  await sandbox.runCode(code, {
    onStdout: (data) => delays.push(Date.now() - Number(data.line) * 1000),
  })

  // The aim is 20 ms; a machine that is busy is allowed more.
  assert.equal(delays.length, 20)
  assert.ok(delays.sort((a, b) => a - b)[10] < 100, `${delays}`)
}))
