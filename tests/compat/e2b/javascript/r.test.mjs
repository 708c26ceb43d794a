// The kernel of R, where there is one.

import assert from 'node:assert/strict'
import test from 'node:test'
import { sandboxed } from './face.mjs'

test('r prints and keeps its state', sandboxed(async (sandbox) => {
  await sandbox.runCode('x <- 41', { language: 'r' })

  const printed = await sandbox.runCode('print("x")', { language: 'r' })
  const value = await sandbox.runCode('x + 1', { language: 'r' })

  assert.equal(printed.logs.stdout.join(''), '[1] "x"\n')
  assert.match(value.text, /42/)
}))
