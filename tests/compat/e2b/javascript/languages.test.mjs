// Kernels of other languages that every machine has.

import assert from 'node:assert/strict'
import test from 'node:test'
import { TimeoutError } from '@e2b/code-interpreter'
import { sandboxed } from './face.mjs'

test('output is streamed', sandboxed(async (sandbox) => {
  for (const [language, code] of [
    ['javascript', "console.log('out ü'); console.error('err')"],
    ['typescript', "const s: string = 'out ü'; console.log(s); console.error('err')"],
    ['bash', "echo 'out ü'; echo err >&2"],
  ]) {
    const out = []
    const execution = await sandbox.runCode(code, {
      language,
      onStdout: (data) => out.push(data.line),
    })
    assert.equal(execution.error, undefined)
    assert.equal(out.join(''), 'out ü\n')
    assert.equal(execution.logs.stderr.join(''), 'err\n')
  }
}))

test('javascript keeps its state and awaits', sandboxed(async (sandbox) => {
  await sandbox.runCode('const x = 40', { language: 'js' })

  const sum = await sandbox.runCode('x + 2', { language: 'javascript' })
  const awaited = await sandbox.runCode("await Promise.resolve('awaited')", { language: 'js' })
  const failed = await sandbox.runCode("throw new TypeError('wrong ü')", { language: 'js' })

  assert.equal(sum.text, '42')
  assert.equal(awaited.text, 'awaited')
  assert.deepEqual([failed.error.name, failed.error.value], ['TypeError', 'wrong ü'])
}))

test('typescript is compiled', sandboxed(async (sandbox) => {
  const execution = await sandbox.runCode(
    "import { basename } from 'path'\nconst f = (p: string): string => basename(p)\nf('/a/b.txt')",
    { language: 'ts' },
  )

  assert.equal(execution.error, undefined)
  assert.equal(execution.text, 'b.txt')
}))

test('variables are there for one execution', sandboxed(async (sandbox) => {
  const envs = { OWN: 'it\'s "quoted" $HOME `x` \\ ü' }
  for (const [language, code] of [
    ['javascript', '    console.log(process.env.OWN)'],
    ['bash', '    echo "$OWN"'],
  ]) {
    const during = await sandbox.runCode(code, { language, envs })
    const after = await sandbox.runCode(code, { language })
    assert.equal(during.logs.stdout.join(''), `${envs.OWN}\n`)
    assert.ok(['', 'undefined'].includes(after.logs.stdout.join('').trim()))
  }
}))

test('code that takes too long is interrupted', sandboxed(async (sandbox) => {
  for (const [language, code, next] of [
    ['javascript', 'await new Promise((r) => setTimeout(r, 300000))', "console.log('next')"],
    ['bash', 'sleep 300', 'echo next'],
  ]) {
    await sandbox.runCode(next, { language })
    await assert.rejects(sandbox.runCode(code, { language, timeoutMs: 1000 }), TimeoutError)
    const execution = await sandbox.runCode(next, { language })
    assert.equal(execution.logs.stdout.join(''), 'next\n')
  }
}))
