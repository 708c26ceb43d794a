// What takes long to see; it has a file of its own because files run side by side.

import assert from 'node:assert/strict'
import test from 'node:test'
import { sandboxed } from './face.mjs'

// covers: commands.run
test('a background command without a timeout outlives the default one', sandboxed(async (sandbox) => {
  const command = await sandbox.commands.run('sleep 63; echo done', {
    background: true,
    timeoutMs: 0,
  })
  const result = await command.wait()

  assert.equal(result.stdout, 'done\n')
}))
