// What takes long to see; its runner works beside the others.

import assert from 'node:assert/strict'
import test from 'node:test'
import { Sandbox } from '@e2b/code-interpreter'

// covers: commands.run
test('a background command without a timeout outlives the default one', async () => {
  const sandbox = await Sandbox.create()
  const command = await sandbox.commands.run('sleep 63; echo done', {
    background: true,
    timeoutMs: 0,
  })
  const result = await command.wait()
  await sandbox.kill()

  assert.equal(result.stdout, 'done\n')
})
