// The kernel of Java, where there is one.

import assert from 'node:assert/strict'
import test from 'node:test'
import { sandboxed } from './face.mjs'

test('java prints and keeps its state', sandboxed(async (sandbox) => {
  await sandbox.runCode('int x = 41;', { language: 'java' })

  const execution = await sandbox.runCode('System.out.println("x is " + (x + 1));', {
    language: 'java',
  })

  assert.equal(execution.error, undefined)
  assert.equal(execution.logs.stdout.join(''), 'x is 42\n')
}))
